/* Time since the kernel started, and short waits. */
#ifndef FIRKIN_CLOCK_H
#define FIRKIN_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Milliseconds of CLOCK_BOOTTIME. */
uint64_t now_ms(void);

/* A wait that starts at one millisecond and doubles up to sixteen. */
struct backoff {
    uint64_t deadline_ms;
    unsigned pause_ms;
};

struct backoff backoff_start(unsigned limit_ms);

/* Sleep a little; false, without sleeping, once the limit has passed. */
bool backoff_wait(struct backoff *backoff);

#endif
