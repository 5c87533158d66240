/* One program that the host runs: its process, its streams, and the credit that bounds them. */
#ifndef FIRKIN_STREAM_H
#define FIRKIN_STREAM_H

#include "conn.h"

struct stream {
    struct garbage garbage;
    struct stream *next;
    struct conn *conn;
    uint32_t id;
    pid_t pid;
    bool syncs;   /* no program: a child that calls sync() */
    bool tty;
    bool started; /* exec worked, and the host was told */
    bool exited;
    int status;
    uint32_t credit;         /* bytes of output that the host still takes */
    struct watch report;     /* tells of a failed exec, or ends with a good one */
    struct watch output[2];  /* stdout or the terminal, stderr */
    size_t left[2];          /* bytes to come from a pipe after the exit */
    struct watch input;
    unsigned char *pending;  /* stdin not yet taken, STDIN_WINDOW bytes */
    size_t pending_start, pending_len;
    uint32_t taken;          /* bytes of stdin taken since credit was last given */
    bool input_ends;
};

void stream_exec(struct conn *conn, const struct frame *frame);
void stream_task(struct conn *conn, const struct frame *frame);
void stream_sync(struct conn *conn, const struct frame *frame);

/* Any other frame of a stream. False when it breaks the protocol. */
bool stream_frame(struct conn *conn, const struct frame *frame);

/* Its process has ended with this wait status. */
void stream_reaped(struct stream *stream, int status);

/* Go on after the connection got room. */
void stream_resume_all(struct conn *conn);

/* Ask every program to end, as a closing terminal would. */
void stream_hang_up_all(struct conn *conn);

/* Kill and forget. */
void stream_abort(struct stream *stream);

#endif
