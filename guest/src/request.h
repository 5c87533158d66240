/* The requests that open a stream with a child. */
#ifndef FIRKIN_REQUEST_H
#define FIRKIN_REQUEST_H

#include "conn.h"

void request_exec(struct conn *conn, const struct frame *frame);
void request_task(struct conn *conn, const struct frame *frame);
void request_sync(struct conn *conn, const struct frame *frame);

#endif
