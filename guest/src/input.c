/* From the host to a stream's stdin: straight from the frame into the pipe, and held back only where the pipe is full. */
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

enum { LARGE_PIPE = 262144 };

static void on_input(void *owner, uint32_t events);

void input_open(struct stream *stream, int fd)
{
    stream->input.watch = watch_of(fd, on_input, stream);
}

uint32_t input_window(const struct stream *stream)
{
    return STDIN_WINDOW - (uint32_t)stream->input.len;
}

void input_close(struct stream *stream)
{
    watch_close(&stream->input.watch);
    free(stream->input.pending);
    stream->input.pending = NULL;
    stream->input.len = 0;
}

/* Bytes taken. What nobody will ever read is dropped, so that the host does not wait. */
static size_t write_some(struct stream *stream, const unsigned char *data, size_t len)
{
    int fd = stream->input.watch.fd;
    if (fd < 0 || !len)
        return len;
    ssize_t wrote = stream->kind == STREAM_DIAL ? send(fd, data, len, MSG_NOSIGNAL) : write(fd, data, len);
    if (wrote < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : len;
    return (size_t)wrote;
}

/* A pipe that is full once will be again: a larger one takes more at a time. */
static bool grow_pipe(struct input *input)
{
    if (input->grown)
        return false;
    input->grown = true;
    return fcntl(input->watch.fd, F_SETPIPE_SZ, LARGE_PIPE) >= 0;
}

/* Give credit back in large pieces: the host has the rest of its window meanwhile. */
static void return_credit(struct stream *stream)
{
    struct input *input = &stream->input;
    struct writer writer = {0};
    if (!stream->conn || input->taken < STDIN_WINDOW / 4)
        return;
    write_u32(&writer, input->taken);
    conn_send(stream->conn, FRAME_WINDOW, stream->id, writer.data, writer.len);
    input->taken = 0;
}

static void end(struct stream *stream)
{
    static const unsigned char end_of_file = 4; /* what a terminal takes for the end: control-D */
    struct input *input = &stream->input;
    if (!input->ends || input->len || input->watch.fd < 0)
        return;
    if (stream->tty && write(input->watch.fd, &end_of_file, 1) < 0)
        return;
    if (stream->kind == STREAM_DIAL)
        shutdown(input->watch.fd, SHUT_WR); /* the socket is open for reading still */
    watch_close(&input->watch);
}

static void settle(struct stream *stream)
{
    return_credit(stream);
    end(stream);
    watch_for(&stream->input.watch, stream->input.len || stream->input.ends ? EPOLLOUT : 0);
}

static void on_input(void *owner, uint32_t events)
{
    struct stream *stream = owner;
    struct input *input = &stream->input;
    struct conn *conn = stream->conn;
    (void)events;
    size_t wrote = write_some(stream, input->pending + input->start, input->len);
    input->len -= wrote;
    input->start = input->len ? input->start + wrote : 0;
    input->taken += (uint32_t)wrote;
    settle(stream);
    stream_finish(stream);
    if (conn)
        conn_flush(conn);
}

/* Keep what could not be written yet. */
static bool hold(struct input *input, const unsigned char *data, size_t len)
{
    if (!len)
        return true;
    if (!input->pending && !(input->pending = malloc(STDIN_WINDOW)))
        return false;
    if (input->start + input->len + len > STDIN_WINDOW) {
        memmove(input->pending, input->pending + input->start, input->len);
        input->start = 0;
    }
    memcpy(input->pending + input->start + input->len, data, len);
    input->len += len;
    return true;
}

bool input_take(struct stream *stream, const struct frame *frame)
{
    struct input *input = &stream->input;
    size_t wrote = 0;
    if (input->len + input->taken + frame->len > STDIN_WINDOW)
        return false;
    if (input->ends || input->watch.fd < 0)
        wrote = frame->len;
    else if (!input->len) {
        wrote = write_some(stream, frame->payload, frame->len);
        if (wrote < frame->len && grow_pipe(input))
            wrote += write_some(stream, frame->payload + wrote, frame->len - wrote);
    }
    if (!hold(input, frame->payload + wrote, frame->len - wrote))
        return false;
    input->taken += (uint32_t)wrote;
    input->ends = input->ends || frame->flags & STDIN_EOF;
    settle(stream);
    return true;
}
