/* Programs that outlive their connection: what they say is kept until the host takes them over again. */
#ifndef FIRKIN_KEPT_H
#define FIRKIN_KEPT_H

#include "ring.h"
#include "stream.h"

enum { KEPT_MAX = 64, KEPT_MAX_ARGV = 1000 };

struct kept {
    struct kept *next; /* the next younger one */
    struct stream *stream;
    size_t argv_len;
    char argv[KEPT_MAX_ARGV];
    struct ring ring; /* what it said while it was detached */
};

/* Keep this stream's program. False when there is no place for it, which the host is told. */
bool kept_add(struct stream *stream, const char *const *argv);

/* The stream is dropped. */
void kept_remove(struct stream *stream);

/* Part the stream from its connection; its program goes on. */
void kept_detach(struct stream *stream);

/* The host's requests. */
void kept_on_attach(struct conn *conn, const struct frame *frame);
void kept_on_detach(struct conn *conn, const struct frame *frame);
void kept_on_list(struct conn *conn, const struct frame *frame);

#endif
