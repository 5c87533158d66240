/* Addresses and routes by rtnetlink. */
#ifndef FIRKIN_NET_H
#define FIRKIN_NET_H

#include "config.h"

/* Bring up lo, and each interface with its address and default route. -1 after a line for each that failed. */
int net_configure(const struct config *config);

#endif
