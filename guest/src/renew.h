/* Makes a machine that was forked another one. */
#ifndef FIRKIN_RENEW_H
#define FIRKIN_RENEW_H

#include "config.h"

/* Apply an identity. -1 after a line for what failed, which ends it. */
int renew(const struct config *config);

#endif
