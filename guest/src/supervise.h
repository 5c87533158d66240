/* A minimal init, for images that bring none or are not to run theirs. */
#ifndef FIRKIN_SUPERVISE_H
#define FIRKIN_SUPERVISE_H

#include <sys/types.h>

#include "config.h"

/* Starts the agent; its pid, or -1 after one line on the console. */
typedef pid_t start_agent_fn(void *context);

/* Run entrypoint and agent, reap, and end the machine when the entrypoint exits or a signal says so. */
_Noreturn void supervise(const struct config *config, start_agent_fn *start_agent, void *context);

/* Reset: the way a microVM ends. Waits until the console has said what there was to say. */
_Noreturn void reset_machine(void);

#endif
