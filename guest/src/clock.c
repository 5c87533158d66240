/* Time since the kernel started, and short waits. */
#include "clock.h"

#include <time.h>

enum { LONGEST_PAUSE_MS = 16 };

uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

struct backoff backoff_start(unsigned limit_ms)
{
    return (struct backoff){.deadline_ms = now_ms() + limit_ms, .pause_ms = 1};
}

bool backoff_wait(struct backoff *backoff)
{
    if (now_ms() >= backoff->deadline_ms)
        return false;
    nanosleep(&(struct timespec){.tv_nsec = (long)backoff->pause_ms * 1000000}, NULL);
    if (backoff->pause_ms < LONGEST_PAUSE_MS)
        backoff->pause_ms *= 2;
    return true;
}
