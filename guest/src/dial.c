/* DIAL: connects to 127.0.0.1, then ::1, and leaves the rest to a stream's input and output. */
#include "dial.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>

#include "loopback.h"
#include "stream.h"

static void on_connected(void *owner, uint32_t events);

/* The socket is the stream's input until it is connected. */
static int begin(struct stream *stream, enum loopback_family family)
{
    int fd = loopback_connect(family, stream->dial.port);
    if (fd < 0)
        return errno;
    stream->dial.family = family;
    stream->input.watch = watch_of(fd, on_connected, stream);
    watch_for(&stream->input.watch, EPOLLOUT);
    return 0;
}

/* IPv6 comes after IPv4, and its failure says less: many guests are without. */
static void try_next(struct stream *stream, int error)
{
    watch_close(&stream->input.watch);
    if (stream->dial.family == LOOPBACK_IPV4 && begin(stream, LOOPBACK_IPV6) == 0)
        stream->dial.error = error;
    else
        stream_fail(stream, ERROR_SYSTEM, strerror(stream->dial.error ? stream->dial.error : error));
}

/* Each way is watched by itself. */
static void take_socket(struct stream *stream)
{
    int fd = stream->input.watch.fd;
    int reads = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (reads < 0) {
        stream_fail(stream, ERROR_SYSTEM, strerror(errno));
        return;
    }
    watch_for(&stream->input.watch, 0);
    input_open(stream, fd);
    output_open(stream, reads, -1);
    stream_started(stream);
}

static void on_connected(void *owner, uint32_t events)
{
    struct stream *stream = owner;
    struct conn *conn = stream->conn;
    int error = loopback_result(stream->input.watch.fd);
    (void)events;
    if (error)
        try_next(stream, error);
    else
        take_socket(stream);
    conn_flush(conn);
}

void dial_on_request(struct conn *conn, const struct frame *frame)
{
    struct reader reader = reader_of(frame);
    struct stream *stream;
    uint32_t window = read_u32(&reader);
    uint16_t port = read_u16(&reader);
    if (reader.bad || !port) {
        conn_send_error(conn, frame->stream, ERROR_PROTOCOL, "a request to dial that makes no sense");
        return;
    }
    if (!(stream = stream_open(conn, frame, STREAM_DIAL)))
        return;
    stream->output.credit = window;
    stream->dial.port = port;
    int error = begin(stream, LOOPBACK_IPV4);
    if (error)
        try_next(stream, error);
}
