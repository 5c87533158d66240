/* Randomness that the host gives to the kernel. */
#ifndef FIRKIN_SEED_H
#define FIRKIN_SEED_H

#include "config.h"

/* Mix the seed in, credited as full entropy. -1 after a line. */
int seed_add(const struct config *config);

/* The same, and nothing that the kernel draws from now on comes of what it held before alone. */
int seed_renew(const struct config *config);

#endif
