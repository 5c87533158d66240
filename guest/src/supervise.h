/* A minimal init, for images that bring none or are not to run theirs. */
#ifndef FIRKIN_SUPERVISE_H
#define FIRKIN_SUPERVISE_H

#include "config.h"

/* Run the entrypoint on the console, reap, and end the machine when it exits or a signal says so. */
_Noreturn void supervise(const struct config *config);

/* Reset: the way a microVM ends. Waits until the console has said what there was to say. */
_Noreturn void reset_machine(void);

#endif
