/* One epoll loop: descriptors to watch, timers, and memory to free once nothing can point at it any more. */
#ifndef FIRKIN_LOOP_H
#define FIRKIN_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct watch {
    int fd; /* -1: closed */
    uint32_t events;
    void (*ready)(void *owner, uint32_t events);
    void *owner;
};

struct timer {
    struct timer *next;
    uint64_t due_ms;
    void (*fire)(void *owner);
    void *owner;
    bool armed;
};

/* First member of whatever loop_free() takes. */
struct garbage {
    struct garbage *next;
};

int loop_open(void);
void loop_close(void);

/* Wait once and serve what is ready. */
void loop_turn(void);

/* A watch on `fd` that listens for nothing yet. */
struct watch watch_of(int fd, void (*ready)(void *owner, uint32_t events), void *owner);

/* Listen for exactly these events; 0 takes the descriptor out, so that a hang-up cannot spin the loop. */
void watch_for(struct watch *watch, uint32_t events);

/* Take out and close. Does nothing when closed already. */
void watch_close(struct watch *watch);

void timer_start(struct timer *timer, unsigned delay_ms);
void timer_stop(struct timer *timer);

/* free() at the end of this turn. */
void loop_free(struct garbage *garbage);

#endif
