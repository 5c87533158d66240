/* A fork's interfaces: other MACs, other addresses. */
#ifndef FIRKIN_RENEW_NET_H
#define FIRKIN_RENEW_NET_H

#include "config.h"

/* Change MACs, replace addresses and default routes, and tell the neighbours. -1 after a line. */
int renew_net(const struct config *config);

#endif
