/* The host's request that this machine be another one from now on. */
#ifndef FIRKIN_IDENTITY_H
#define FIRKIN_IDENTITY_H

#include "conn.h"

/* Serve IDENTITY. */
void identity_on_request(struct conn *conn, const struct frame *frame);

#endif
