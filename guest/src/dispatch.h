/* What each frame of the host's asks for. */
#ifndef FIRKIN_DISPATCH_H
#define FIRKIN_DISPATCH_H

#include "conn.h"

/* Serve one frame; its reply is queued, or the connection closed. */
void dispatch(struct conn *conn, const struct frame *frame);

#endif
