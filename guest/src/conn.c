/* One connection: cuts the byte stream into frames, hands them out, and buffers what goes back. */
#include "conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dispatch.h"
#include "stream.h"

enum { ROOM_FOR_REPLY = 8192 };

static bool conn_closed(const struct conn *conn)
{
    return conn->socket.fd < 0;
}

static size_t room_left(const struct conn *conn)
{
    return sizeof conn->out - conn->out_len;
}

/* Read on only while a reply to what is read would fit. */
static void update_interest(struct conn *conn)
{
    bool reads = !conn->frame_waits && room_left(conn) >= ROOM_FOR_REPLY;
    bool writes = conn->out_len || conn->wants_room || conn->frame_waits;
    watch_for(&conn->socket, (reads ? EPOLLIN : 0) | (writes ? EPOLLOUT : 0));
}

void conn_close(struct conn *conn)
{
    struct agent *agent = conn->agent;
    if (conn_closed(conn))
        return;
    while (conn->streams)
        stream_abandon(conn->streams);
    watch_close(&conn->socket);
    struct conn **at = &agent->conns;
    while (*at != conn)
        at = &(*at)->next;
    *at = conn->next;
    agent->conn_count--;
    loop_free(&conn->garbage);
}

/* Free bytes at the end of the queue, `len` of them if that can be. */
static unsigned char *tail(struct conn *conn, size_t len)
{
    if (sizeof conn->out - conn->out_start - conn->out_len < len) {
        memmove(conn->out, conn->out + conn->out_start, conn->out_len);
        conn->out_start = 0;
    }
    return conn->out + conn->out_start + conn->out_len;
}

unsigned char *conn_reserve(struct conn *conn, size_t *room)
{
    size_t left = room_left(conn);
    if (conn_closed(conn) || conn->frame_waits || left <= CONN_CONTROL + FRAME_HEADER) {
        conn->wants_room = true;
        return NULL;
    }
    left -= CONN_CONTROL + FRAME_HEADER;
    if (*room > left)
        *room = left;
    if (*room > FRAME_MAX_PAYLOAD)
        *room = FRAME_MAX_PAYLOAD;
    return tail(conn, FRAME_HEADER + *room) + FRAME_HEADER;
}

void conn_commit(struct conn *conn, uint8_t type, uint32_t stream, size_t len)
{
    const struct frame frame = {.type = type, .stream = stream, .len = (uint32_t)len};
    frame_pack(conn->out + conn->out_start + conn->out_len, &frame);
    conn->out_len += FRAME_HEADER + len;
}

void conn_send(struct conn *conn, uint8_t type, uint32_t stream, const void *payload, size_t len)
{
    if (room_left(conn) < FRAME_HEADER + len)
        conn->overrun = true;
    if (conn_closed(conn) || conn->overrun)
        return;
    unsigned char *at = tail(conn, FRAME_HEADER + len);
    if (len)
        memcpy(at + FRAME_HEADER, payload, len);
    conn_commit(conn, type, stream, len);
}

void conn_send_error(struct conn *conn, uint32_t stream, enum error_code code, const char *text)
{
    struct writer writer = {0};
    write_u16(&writer, (uint16_t)code);
    write_blob(&writer, text, strnlen(text, 1000));
    conn_send(conn, FRAME_ERROR, stream, writer.data, writer.len);
}

static bool write_some(struct conn *conn)
{
    ssize_t wrote = send(conn->socket.fd, conn->out + conn->out_start, conn->out_len, MSG_NOSIGNAL);
    if (wrote < 0)
        return errno == EAGAIN || errno == EINTR;
    conn->out_len -= (size_t)wrote;
    conn->out_start = conn->out_len ? conn->out_start + (size_t)wrote : 0;
    return true;
}

void conn_flush(struct conn *conn)
{
    if (conn_closed(conn))
        return;
    if (conn->overrun || (conn->out_len && !write_some(conn))) {
        conn_close(conn);
        return;
    }
    update_interest(conn);
}

void conn_refuse(struct conn *conn, enum error_code code, const char *text)
{
    conn_send_error(conn, 0, code, text);
    conn_flush(conn);
    conn_close(conn);
}

/* Room that a frame's reply may need: all kept programs, or less than a header's worth of words. */
static size_t reply_room(const struct frame *frame)
{
    return frame->type == FRAME_KEPT ? CONN_CONTROL + CONN_FRAME : ROOM_FOR_REPLY;
}

/* The next frame if all of it is here and its reply would fit. */
static bool next_frame(struct conn *conn, struct frame *frame)
{
    conn->frame_waits = false;
    if (conn->in_len < FRAME_HEADER)
        return false;
    if (!frame_unpack(frame, conn->in + conn->in_start)) {
        conn_refuse(conn, ERROR_PROTOCOL, "not a frame");
        return false;
    }
    if (conn->in_len < FRAME_HEADER + frame->len)
        return false;
    conn->frame_waits = room_left(conn) < reply_room(frame);
    frame->payload = conn->in + conn->in_start + FRAME_HEADER;
    return !conn->frame_waits;
}

static void serve_frames(struct conn *conn)
{
    struct frame frame;
    while (!conn_closed(conn) && next_frame(conn, &frame)) {
        dispatch(conn, &frame);
        conn->in_start += FRAME_HEADER + frame.len;
        conn->in_len -= FRAME_HEADER + frame.len;
    }
    if (!conn->in_len)
        conn->in_start = 0;
}

/* Where more can be read to: there is always room for the rest of a frame. */
static size_t make_space(struct conn *conn)
{
    if (conn->in_start + CONN_FRAME > sizeof conn->in) {
        memmove(conn->in, conn->in + conn->in_start, conn->in_len);
        conn->in_start = 0;
    }
    return sizeof conn->in - conn->in_start - conn->in_len;
}

static void receive(struct conn *conn)
{
    size_t space = make_space(conn);
    ssize_t got = recv(conn->socket.fd, conn->in + conn->in_start + conn->in_len, space, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        conn_close(conn);
        return;
    }
    conn->in_len += (size_t)got;
    serve_frames(conn);
}

static void on_socket(void *owner, uint32_t events)
{
    struct conn *conn = owner;
    if (events & EPOLLOUT) {
        conn->wants_room = false;
        conn_flush(conn);
        if (!conn_closed(conn))
            serve_frames(conn); /* those that waited for room, before output takes it */
        stream_resume_all(conn);
    }
    bool reads = conn->frame_waits ? events & (EPOLLHUP | EPOLLERR) : events & ~(uint32_t)EPOLLOUT;
    if (!conn_closed(conn) && reads)
        receive(conn);
    conn_flush(conn);
}

void conn_open(struct agent *agent, int fd)
{
    struct conn *conn = malloc(sizeof *conn); /* not calloc: its pages are to be touched when used, not before */
    if (!conn) {
        close(fd);
        return;
    }
    memset(conn, 0, offsetof(struct conn, in));
    conn->agent = agent;
    conn->socket = watch_of(fd, on_socket, conn);
    conn->next = agent->conns;
    agent->conns = conn;
    agent->conn_count++;
    update_interest(conn);
}
