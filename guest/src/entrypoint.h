/* The image's program on the console of a machine whose init is firkin-init. */
#ifndef FIRKIN_ENTRYPOINT_H
#define FIRKIN_ENTRYPOINT_H

#include <sys/types.h>

#include "config.h"

/* Start it and wait until its exec worked. 0: there is none; -1 after one line on the console: it cannot run. */
pid_t entrypoint_start(const struct config *config);

#endif
