/* One connection of the host's: frames in, frames out, and the streams that it carries. */
#ifndef FIRKIN_CONN_H
#define FIRKIN_CONN_H

#include "agent.h"

enum {
    CONN_FRAME = FRAME_HEADER + FRAME_MAX_PAYLOAD,
    CONN_CONTROL = 16384, /* room that output never takes: replies and exits always fit */
    CONN_IN = 4 * CONN_FRAME,
    CONN_OUT = 2 * CONN_FRAME + CONN_CONTROL,
    CONN_MAX_STREAMS = 64,
};

struct stream;

struct conn {
    struct garbage garbage;
    struct conn *next;
    struct agent *agent;
    struct stream *streams;
    size_t stream_count;
    struct watch socket; /* fd -1: closed, to be freed */
    bool greeted;
    bool wants_room;  /* output waits for the host to read */
    bool frame_waits; /* so does the next frame, for room for its reply */
    bool overrun;     /* a reply found no room: the host does not keep to the protocol */
    size_t in_start, in_len;
    size_t out_start, out_len;
    unsigned char in[CONN_IN];
    unsigned char out[CONN_OUT];
};

void conn_open(struct agent *agent, int fd);

/* End it with a fault after which the rest of the bytes cannot be trusted. */
void conn_refuse(struct conn *conn, enum error_code code, const char *text);

/* Close, and kill what runs for it. */
void conn_close(struct conn *conn);

/* Queue a small frame. */
void conn_send(struct conn *conn, uint8_t type, uint32_t stream, const void *payload, size_t len);
void conn_send_error(struct conn *conn, uint32_t stream, enum error_code code, const char *text);

/* Where up to `room` bytes of output may be put for a frame to follow; NULL when the host must read first. */
unsigned char *conn_reserve(struct conn *conn, size_t *room);

/* Queue the frame whose payload was put where conn_reserve() said. */
void conn_commit(struct conn *conn, uint8_t type, uint32_t stream, size_t len);

/* Write what the socket takes, and arrange to go on later. */
void conn_flush(struct conn *conn);

#endif
