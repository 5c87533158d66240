/* Children: programs, tasks and a sync, each in a session of its own, on pipes or on a terminal. */
#ifndef FIRKIN_SPAWN_H
#define FIRKIN_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "launch.h"

struct spawn {
    struct launch launch;
    bool wants_stdin;
    uint16_t rows, columns;
};

/* Once, before the first child. */
void spawn_init(void);

/* Our ends, non-blocking; -1 where there is none. */
struct spawned {
    pid_t pid;
    int in, out, err;
};

typedef int spawn_fn(const struct spawn *spawn, struct spawned *spawned, struct launch_failure *failure);

/* Start a program. 0, or -1 and nothing left open: `failure` says what stopped the launch, or errno if its stage is 0. */
spawn_fn spawn_program;

/* Start one of the agent's own functions, of `launch` by argv and user alone. The same is returned. */
spawn_fn spawn_task;

/* A child that ends when the disks have everything; -1 with errno. */
pid_t spawn_sync(void);

/* To the child's whole group, or to it alone where it has none yet. */
void spawn_signal(pid_t pid, int number);

/* Tell a terminal its size, by its master side. */
void spawn_resize(int master, uint16_t rows, uint16_t columns);

#endif
