/* One epoll loop for the agent. A turn may close watches whose events it has fetched already; those find fd -1. */
#include "loop.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "clock.h"

enum { EVENTS_A_TURN = 64 };

static int loop_fd = -1;
static struct timer *timers;
static struct garbage *garbage_list;

int loop_open(void)
{
    loop_fd = epoll_create1(EPOLL_CLOEXEC);
    return loop_fd < 0 ? -1 : 0;
}

static void collect_garbage(void)
{
    while (garbage_list) {
        struct garbage *garbage = garbage_list;
        garbage_list = garbage->next;
        free(garbage);
    }
}

void loop_close(void)
{
    collect_garbage();
    close(loop_fd);
    loop_fd = -1;
}

static int next_wait_ms(void)
{
    uint64_t now = now_ms(), wait = INT_MAX;
    if (!timers)
        return -1;
    for (const struct timer *timer = timers; timer; timer = timer->next) {
        uint64_t left = timer->due_ms > now ? timer->due_ms - now : 0;
        wait = left < wait ? left : wait;
    }
    return (int)wait;
}

static void fire_timers(void)
{
    if (!timers)
        return;
    uint64_t now = now_ms();
    for (struct timer *timer = timers, *next; timer; timer = next) {
        next = timer->next;
        if (timer->due_ms > now)
            continue;
        timer_stop(timer);
        timer->fire(timer->owner);
        next = timers; /* firing may have changed the list; what is left over is found again */
    }
}

void loop_turn(void)
{
    struct epoll_event events[EVENTS_A_TURN];
    int count = epoll_wait(loop_fd, events, EVENTS_A_TURN, next_wait_ms());
    for (int i = 0; i < count; i++) {
        struct watch *watch = events[i].data.ptr;
        if (watch->fd >= 0 && watch->events)
            watch->ready(watch->owner, events[i].events);
    }
    fire_timers();
    collect_garbage();
}

struct watch watch_of(int fd, void (*ready)(void *owner, uint32_t events), void *owner)
{
    return (struct watch){.fd = fd, .ready = ready, .owner = owner};
}

void watch_for(struct watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (watch->fd < 0 || watch->events == events)
        return;
    epoll_ctl(loop_fd, !events ? EPOLL_CTL_DEL : watch->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, watch->fd, &event);
    watch->events = events;
}

void watch_close(struct watch *watch)
{
    if (watch->fd < 0)
        return;
    watch_for(watch, 0); /* close() alone would leave it in while a child shares the open file */
    close(watch->fd);
    watch->fd = -1;
}

void timer_start(struct timer *timer, unsigned delay_ms)
{
    timer_stop(timer);
    timer->due_ms = now_ms() + delay_ms;
    timer->armed = true;
    timer->next = timers;
    timers = timer;
}

void timer_stop(struct timer *timer)
{
    if (!timer->armed)
        return;
    struct timer **at = &timers;
    while (*at != timer)
        at = &(*at)->next;
    *at = timer->next;
    timer->armed = false;
}

void loop_free(struct garbage *garbage)
{
    garbage->next = garbage_list;
    garbage_list = garbage;
}
