/* One stream of a connection: a program, a task, a port or a sync, with the credit that bounds what is under way. */
#ifndef FIRKIN_STREAM_H
#define FIRKIN_STREAM_H

#include "conn.h"
#include "input.h"
#include "loopback.h"
#include "output.h"

enum stream_kind { STREAM_PROGRAM, STREAM_TASK, STREAM_SYNC, STREAM_DIAL };

struct spawned;

/* A port while it is being connected to. */
struct dial {
    uint16_t port;
    enum loopback_family family;
    int error; /* of the first family */
};

struct stream {
    struct garbage garbage;
    struct stream *next; /* of its connection, or of the agent's that are detached */
    struct agent *agent;
    struct conn *conn; /* NULL: detached */
    uint32_t id;
    enum stream_kind kind;
    pid_t pid; /* 0: nothing that has one, or not yet */
    bool tty;
    bool started; /* the host was told */
    bool exited;
    int status;
    struct output output;
    struct input input;
    struct dial dial;
    struct kept *kept; /* NULL: it ends with its connection */
};

struct stream *stream_find(const struct conn *conn, uint32_t id);

/* A new stream for this frame; NULL when there can be none, which the host is told. */
struct stream *stream_open(struct conn *conn, const struct frame *frame, enum stream_kind kind);

/* A child was started for it. */
void stream_adopt(struct stream *stream, const struct spawned *child);

/* Tell the host that it runs. */
void stream_started(struct stream *stream);

/* End it with an error. */
void stream_fail(struct stream *stream, enum error_code code, const char *reason);

/* Send EXIT if the process has ended and its last output is on its way. Nothing of the stream follows. */
void stream_finish(struct stream *stream);

/* A frame of a stream that exists. False when it breaks the protocol. */
bool stream_frame(struct conn *conn, const struct frame *frame);

/* Its process has ended with this wait status. */
void stream_reaped(struct stream *stream, int status);

/* The connection is closed: kill and forget, or detach what is kept. */
void stream_abandon(struct stream *stream);

/* Let go of everything it has. */
void stream_drop(struct stream *stream);

/* Go on after the connection got room. */
void stream_resume_all(struct conn *conn);

/* Ask every program of a list to end, as a closing terminal would. */
void stream_hang_up_all(struct stream *list);

#endif
