/* The life of a stream: opened by a request, adopted child or port, frames, exit. */
#include "stream.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "kept.h"
#include "spawn.h"

enum { AGENT_MAX_STREAMS = 512 };

struct stream *stream_find(const struct conn *conn, uint32_t id)
{
    struct stream *stream = conn->streams;
    while (stream && stream->id != id)
        stream = stream->next;
    return stream;
}

static struct stream *add(struct conn *conn, uint32_t id, enum stream_kind kind)
{
    static const struct watch none = {.fd = -1};
    struct stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    stream->agent = conn->agent;
    stream->conn = conn;
    stream->id = id;
    stream->kind = kind;
    stream->output.watch[0] = stream->output.watch[1] = stream->input.watch = none;
    stream->next = conn->streams;
    conn->streams = stream;
    conn->stream_count++;
    conn->agent->stream_count++;
    return stream;
}

struct stream *stream_open(struct conn *conn, const struct frame *frame, enum stream_kind kind)
{
    struct stream *stream = NULL;
    if (stream_find(conn, frame->stream))
        conn_send_error(conn, frame->stream, ERROR_PROTOCOL, "that stream is in use");
    else if (conn->stream_count >= CONN_MAX_STREAMS || conn->agent->stream_count >= AGENT_MAX_STREAMS)
        conn_send_error(conn, frame->stream, ERROR_LIMIT, "too many programs run at once");
    else if (!(stream = add(conn, frame->stream, kind)))
        conn_send_error(conn, frame->stream, ERROR_SYSTEM, "out of memory");
    return stream;
}

void stream_adopt(struct stream *stream, const struct spawned *child)
{
    stream->pid = child->pid;
    input_open(stream, child->in);
    output_open(stream, child->out, child->err);
}

void stream_started(struct stream *stream)
{
    struct writer writer = {0};
    write_u32(&writer, (uint32_t)stream->pid);
    write_u32(&writer, input_window(stream));
    conn_send(stream->conn, FRAME_STARTED, stream->id, writer.data, writer.len);
    stream->started = true;
}

static void unlink_from(struct stream **at, const struct stream *stream)
{
    while (*at != stream)
        at = &(*at)->next;
    *at = stream->next;
}

void stream_drop(struct stream *stream)
{
    unlink_from(stream->conn ? &stream->conn->streams : &stream->agent->detached, stream);
    if (stream->conn)
        stream->conn->stream_count--;
    stream->agent->stream_count--;
    output_close(stream);
    input_close(stream);
    kept_remove(stream);
    loop_free(&stream->garbage);
}

static void signal_program(const struct stream *stream, int number)
{
    if (!stream->exited && stream->pid > 0 && stream->kind != STREAM_SYNC)
        spawn_signal(stream->pid, number);
}

void stream_abandon(struct stream *stream)
{
    if (stream->kept) {
        kept_detach(stream);
        return;
    }
    signal_program(stream, SIGKILL);
    stream_drop(stream);
}

void stream_fail(struct stream *stream, enum error_code code, const char *reason)
{
    conn_send_error(stream->conn, stream->id, code, reason);
    signal_program(stream, SIGKILL);
    stream_drop(stream);
}

static void send_exit(const struct stream *stream)
{
    struct writer writer = {0};
    bool killed = WIFSIGNALED(stream->status);
    write_u32(&writer, killed ? EXIT_SIGNAL : EXIT_CODE);
    write_u32(&writer, (uint32_t)(killed ? WTERMSIG(stream->status) : WEXITSTATUS(stream->status)));
    conn_send(stream->conn, FRAME_EXIT, stream->id, writer.data, writer.len);
}

void stream_finish(struct stream *stream)
{
    bool over = stream->kind == STREAM_DIAL ? !stream->input.len : stream->exited;
    if (!stream->started || !over)
        return;
    if (!stream->conn) {
        if (stream->agent->ending)
            stream_drop(stream);
        return; /* until somebody asks how it ended */
    }
    if (!output_done(stream))
        return;
    send_exit(stream);
    stream_drop(stream);
}

static bool take_size(const struct stream *stream, struct reader *reader)
{
    uint16_t rows = read_u16(reader), columns = read_u16(reader);
    if (!reader->bad && stream->tty && stream->output.watch[0].fd >= 0)
        spawn_resize(stream->output.watch[0].fd, rows, columns);
    return !reader->bad;
}

static bool take_signal(struct stream *stream, struct reader *reader)
{
    uint32_t number = read_u32(reader);
    if (reader->bad || number == 0 || number >= NSIG)
        return !reader->bad;
    if (stream->kind != STREAM_DIAL)
        signal_program(stream, (int)number);
    else {
        output_close(stream); /* nobody wants the port any more */
        input_close(stream);
        stream->started = true;
        stream_finish(stream);
    }
    return true;
}

static bool take_credit(struct stream *stream, struct reader *reader)
{
    uint32_t more = read_u32(reader);
    return !reader->bad && output_grant(stream, more);
}

bool stream_frame(struct conn *conn, const struct frame *frame)
{
    struct stream *stream = stream_find(conn, frame->stream);
    struct reader reader = reader_of(frame);
    bool known = frame->type == FRAME_STDIN || (frame->type >= FRAME_WINDOW && frame->type <= FRAME_SIGNAL);
    if (!known || !stream)
        return known; /* of a stream that has ended while this frame was on its way */
    switch (frame->type) {
    case FRAME_STDIN:
        return input_take(stream, frame);
    case FRAME_WINDOW:
        return take_credit(stream, &reader);
    case FRAME_WINSIZE:
        return take_size(stream, &reader);
    default:
        return take_signal(stream, &reader);
    }
}

void stream_reaped(struct stream *stream, int status)
{
    struct conn *conn = stream->conn;
    stream->exited = true;
    stream->status = status;
    if (stream->kind == STREAM_SYNC) {
        conn_send(conn, FRAME_OK, stream->id, NULL, 0);
        stream_drop(stream);
    } else {
        if (!stream->tty)
            output_count_rest(stream);
        stream_finish(stream);
    }
    if (conn)
        conn_flush(conn);
}

void stream_resume_all(struct conn *conn)
{
    for (struct stream *stream = conn->streams, *next; stream; stream = next) {
        next = stream->next;
        output_resume(stream);
        stream_finish(stream);
    }
}

void stream_hang_up_all(struct stream *list)
{
    for (struct stream *stream = list, *next; stream; stream = next) {
        next = stream->next;
        if (stream->kind == STREAM_DIAL || (stream->exited && !stream->conn)) {
            stream_drop(stream);
            continue;
        }
        signal_program(stream, SIGHUP);
        signal_program(stream, SIGCONT);
    }
}
