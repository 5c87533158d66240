/* One connection: cuts the byte stream into frames, hands them out, and buffers what goes back. */
#include "conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

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
    uint32_t events = room_left(conn) >= ROOM_FOR_REPLY ? EPOLLIN : 0;
    watch_for(&conn->socket, events | (conn->out_len || conn->wants_room ? EPOLLOUT : 0));
}

void conn_close(struct conn *conn)
{
    struct agent *agent = conn->agent;
    if (conn_closed(conn))
        return;
    while (conn->streams)
        stream_abort(conn->streams);
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
    if (conn_closed(conn) || left <= CONN_CONTROL + FRAME_HEADER) {
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

/* A fault after which the rest of the bytes cannot be trusted. */
static void refuse(struct conn *conn, enum error_code code, const char *text)
{
    conn_send_error(conn, 0, code, text);
    conn_flush(conn);
    conn_close(conn);
}

static void on_hello(struct conn *conn, const struct frame *frame)
{
    struct reader reader = reader_of(frame);
    struct writer writer = {0};
    uint32_t magic = read_u32(&reader);
    uint16_t lowest = read_u16(&reader), highest = read_u16(&reader);
    if (reader.bad || magic != HELLO_MAGIC || conn->greeted) {
        refuse(conn, ERROR_PROTOCOL, "not a hello");
        return;
    }
    if (lowest > PROTOCOL_VERSION || highest < PROTOCOL_VERSION) {
        refuse(conn, ERROR_VERSION, "this agent speaks version 2");
        return;
    }
    conn->greeted = true;
    agent_introduce(conn->agent, &writer);
    conn_send(conn, FRAME_HELLO_ACK, 0, writer.data, writer.len);
}

static void on_power(struct conn *conn, const struct frame *frame)
{
    if (!agent_power(conn->agent, frame->type == FRAME_REBOOT)) {
        conn_send_error(conn, frame->stream, ERROR_REFUSED, "this agent has no machine to end");
        return;
    }
    conn_send(conn, FRAME_OK, frame->stream, NULL, 0);
}

static void dispatch(struct conn *conn, const struct frame *frame)
{
    if (!conn->greeted && frame->type != FRAME_HELLO) {
        refuse(conn, ERROR_PROTOCOL, "the first frame must be a hello");
        return;
    }
    switch (frame->type) {
    case FRAME_HELLO:
        on_hello(conn, frame);
        break;
    case FRAME_POWEROFF:
    case FRAME_REBOOT:
        on_power(conn, frame);
        break;
    case FRAME_SYNC:
        stream_sync(conn, frame);
        break;
    case FRAME_EXEC:
        stream_exec(conn, frame);
        break;
    case FRAME_TASK:
        stream_task(conn, frame);
        break;
    default:
        if (!stream_frame(conn, frame))
            refuse(conn, ERROR_PROTOCOL, "a frame that the agent does not know, or that breaks its limits");
    }
}

/* Serve every whole frame that is here. */
static void serve_frames(struct conn *conn)
{
    size_t done = 0;
    while (!conn_closed(conn) && conn->in_len - done >= FRAME_HEADER) {
        struct frame frame;
        if (room_left(conn) < ROOM_FOR_REPLY) {
            conn->wants_room = true;
            break;
        }
        if (!frame_unpack(&frame, conn->in + done)) {
            refuse(conn, ERROR_PROTOCOL, "not a frame");
            return;
        }
        if (conn->in_len - done < FRAME_HEADER + frame.len)
            break;
        frame.payload = conn->in + done + FRAME_HEADER;
        dispatch(conn, &frame);
        done += FRAME_HEADER + frame.len;
    }
    conn->in_len -= done;
    if (done && conn->in_len)
        memmove(conn->in, conn->in + done, conn->in_len);
}

static void receive(struct conn *conn)
{
    ssize_t got = recv(conn->socket.fd, conn->in + conn->in_len, sizeof conn->in - conn->in_len, 0);
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
        stream_resume_all(conn);
        if (!conn_closed(conn))
            serve_frames(conn); /* those that waited for room */
    }
    if (!conn_closed(conn) && events & ~(uint32_t)EPOLLOUT && conn->in_len < sizeof conn->in)
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
