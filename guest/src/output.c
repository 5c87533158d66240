/* From a stream's descriptors to the host: read straight into the connection's queue, or into what is kept. */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kept.h"
#include "stream.h"

enum { LARGE_PIPE = 262144, FULL_PIPE = 65536 };

static const uint8_t OUTPUT_FRAME[2] = {FRAME_STDOUT, FRAME_STDERR};

static void on_output(void *owner, uint32_t events);

void output_open(struct stream *stream, int out, int err)
{
    stream->output.watch[0] = watch_of(out, on_output, stream);
    stream->output.watch[1] = watch_of(err, on_output, stream);
    output_resume(stream);
}

static void commit(struct stream *stream, int which, size_t len)
{
    if (!stream->conn) {
        ring_commit(&stream->kept->ring, which, len);
        return;
    }
    conn_commit(stream->conn, OUTPUT_FRAME[which], stream->id, len);
    stream->output.credit -= (uint32_t)len;
}

/* Send what was kept before anything newer. False while some of it has to wait. */
static bool send_kept(struct stream *stream)
{
    struct ring *ring = stream->kept ? &stream->kept->ring : NULL;
    while (ring && ring->len) {
        size_t room = stream->output.credit;
        unsigned char *at = room ? conn_reserve(stream->conn, &room) : NULL;
        int which;
        if (!at)
            return false;
        room = ring_next(ring, &which, room);
        ring_take(ring, at, room);
        commit(stream, which, room);
    }
    return true;
}

void output_resume(struct stream *stream)
{
    bool reads = !stream->conn || (send_kept(stream) && stream->output.credit);
    for (int i = 0; i < 2; i++)
        watch_for(&stream->output.watch[i], reads ? EPOLLIN : 0);
}

bool output_grant(struct stream *stream, uint32_t more)
{
    if (more > UINT32_MAX - stream->output.credit)
        return false;
    stream->output.credit += more;
    output_resume(stream);
    stream_finish(stream); /* what was kept of a program that has ended may have been all that was left */
    return true;
}

/* Where the next bytes go, and how many may. */
static unsigned char *find_room(struct stream *stream, size_t *room)
{
    if (!stream->conn)
        return ring_reserve(&stream->kept->ring, room);
    if (*room > stream->output.credit)
        *room = stream->output.credit;
    return *room ? conn_reserve(stream->conn, room) : NULL;
}

/* A program that fills its pipe says a lot: with a larger one it and we take turns less often. */
static void grow_pipe(struct output *output, int which, size_t got)
{
    if (got < FULL_PIPE || output->grown[which])
        return;
    output->grown[which] = true;
    fcntl(output->watch[which].fd, F_SETPIPE_SZ, LARGE_PIPE); /* a terminal or a socket says no */
}

/* Move one read's worth of output. */
static void pump(struct stream *stream, int which)
{
    struct output *output = &stream->output;
    struct watch *watch = &output->watch[which];
    bool counted = stream->exited && !stream->tty && stream->kind != STREAM_DIAL;
    size_t room = counted ? output->left[which] : FRAME_MAX_PAYLOAD;
    unsigned char *at = find_room(stream, &room);
    if (!at) {
        watch_for(watch, 0); /* until credit or room comes */
        return;
    }
    ssize_t got = read(watch->fd, at, room);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        watch_close(watch); /* its end; a terminal whose last user has gone says EIO */
        return;
    }
    commit(stream, which, (size_t)got);
    grow_pipe(output, which, (size_t)got);
    if (counted && (output->left[which] -= (size_t)got) == 0)
        watch_close(watch); /* the rest is of others that still hold the pipe */
}

static void on_output(void *owner, uint32_t events)
{
    struct stream *stream = owner;
    struct conn *conn = stream->conn;
    (void)events;
    for (int i = 0; i < 2; i++)
        if (stream->output.watch[i].fd >= 0 && stream->output.watch[i].events)
            pump(stream, i);
    stream_finish(stream);
    if (conn)
        conn_flush(conn);
}

void output_count_rest(struct stream *stream)
{
    struct output *output = &stream->output;
    for (int i = 0; i < 2; i++) {
        int rest = 0;
        if (output->watch[i].fd < 0)
            continue;
        ioctl(output->watch[i].fd, FIONREAD, &rest);
        output->left[i] = rest > 0 ? (size_t)rest : 0;
        if (!output->left[i])
            watch_close(&output->watch[i]);
    }
}

bool output_done(const struct stream *stream)
{
    const struct output *output = &stream->output;
    return output->watch[0].fd < 0 && output->watch[1].fd < 0 && !(stream->kept && stream->kept->ring.len);
}

void output_close(struct stream *stream)
{
    watch_close(&stream->output.watch[0]);
    watch_close(&stream->output.watch[1]);
}
