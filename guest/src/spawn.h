/* A child with pipes or a terminal. */
#ifndef FIRKIN_SPAWN_H
#define FIRKIN_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "launch.h"

struct spawn {
    struct launch launch;
    bool task; /* argv is one of the agent's own functions; of the rest of `launch` the user counts alone */
    bool wants_stdin;
    uint16_t rows, columns;
};

/* Our ends, non-blocking; -1 where there is none. `report` yields a struct launch_failure, or ends. */
struct spawned {
    pid_t pid;
    int in, out, err, report;
};

/* 0, or -1 with errno and nothing left open. */
int spawn(const struct spawn *spawn, struct spawned *spawned);

/* Tell a terminal its size, by its master side. */
void spawn_resize(int master, uint16_t rows, uint16_t columns);

#endif
