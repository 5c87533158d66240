/* DIAL: a stream that is a TCP connection to a port on the guest's own loopback. */
#ifndef FIRKIN_DIAL_H
#define FIRKIN_DIAL_H

#include "conn.h"

void dial_on_request(struct conn *conn, const struct frame *frame);

#endif
