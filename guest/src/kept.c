/* Kept programs: a list beside the connections, from which ATTACH takes and to which a hang-up or DETACH gives. */
#include "kept.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum kept_state { KEPT_RUNS, KEPT_EXITED, KEPT_KILLED, KEPT_TTY = 256 };

static void move(struct stream *stream, struct stream **from, struct stream **to)
{
    while (*from != stream)
        from = &(*from)->next;
    *from = stream->next;
    stream->next = *to;
    *to = stream;
}

static size_t count(const struct agent *agent)
{
    size_t count = 0;
    for (const struct kept *kept = agent->kept; kept; kept = kept->next)
        count++;
    return count;
}

/* The oldest of those that have ended and wait for nobody any more makes room. */
static bool make_room(struct agent *agent)
{
    struct kept *kept = agent->kept;
    if (count(agent) < KEPT_MAX)
        return true;
    while (kept && (kept->stream->conn || !kept->stream->exited))
        kept = kept->next;
    if (kept)
        stream_drop(kept->stream);
    return kept;
}

static void copy_argv(struct kept *kept, const char *const *argv)
{
    for (; *argv && kept->argv_len < KEPT_MAX_ARGV; argv++) {
        size_t room = KEPT_MAX_ARGV - kept->argv_len, len = strlen(*argv) + 1;
        len = len < room ? len : room;
        memcpy(kept->argv + kept->argv_len, *argv, len);
        kept->argv_len += len;
    }
    kept->argv[kept->argv_len - 1] = 0; /* the last word may have been cut */
}

bool kept_add(struct stream *stream, const char *const *argv)
{
    struct kept **at = &stream->agent->kept;
    if (!make_room(stream->agent)) {
        stream_fail(stream, ERROR_LIMIT, "too many kept programs run at once");
        return false;
    }
    stream->kept = calloc(1, sizeof *stream->kept); /* zeros of the kernel's: untouched, the ring takes no memory */
    if (!stream->kept) {
        stream_fail(stream, ERROR_SYSTEM, strerror(ENOMEM));
        return false;
    }
    stream->kept->stream = stream;
    copy_argv(stream->kept, argv);
    while (*at)
        at = &(*at)->next;
    *at = stream->kept;
    return true;
}

void kept_remove(struct stream *stream)
{
    struct kept **at = &stream->agent->kept;
    if (!stream->kept)
        return;
    while (*at != stream->kept)
        at = &(*at)->next;
    *at = stream->kept->next;
    free(stream->kept);
    stream->kept = NULL;
}

void kept_detach(struct stream *stream)
{
    move(stream, &stream->conn->streams, &stream->agent->detached);
    stream->conn->stream_count--;
    stream->conn = NULL;
    output_resume(stream);
}

/* The youngest with this pid: the kernel may have given an ended one's pid again. */
static struct stream *find(const struct agent *agent, uint32_t pid)
{
    struct stream *found = NULL;
    for (const struct kept *kept = agent->kept; kept; kept = kept->next)
        if ((uint32_t)kept->stream->pid == pid)
            found = kept->stream;
    return found;
}

static void attach(struct conn *conn, uint32_t id, struct stream *stream, uint32_t window)
{
    move(stream, &stream->agent->detached, &conn->streams);
    conn->stream_count++;
    stream->conn = conn;
    stream->id = id;
    stream->output.credit = window;
    stream->input.taken = 0; /* STARTED says anew what may be sent */
    stream_started(stream);
    output_resume(stream);
    stream_finish(stream);
}

void kept_on_attach(struct conn *conn, const struct frame *frame)
{
    struct reader reader = reader_of(frame);
    uint32_t window = read_u32(&reader), pid = read_u32(&reader);
    struct stream *stream = find(conn->agent, pid);
    if (reader.bad || stream_find(conn, frame->stream))
        conn_send_error(conn, frame->stream, ERROR_PROTOCOL, "a request to attach that makes no sense");
    else if (!stream)
        conn_send_error(conn, frame->stream, ERROR_NOT_FOUND, "no kept program has this pid");
    else if (stream->conn)
        conn_send_error(conn, frame->stream, ERROR_REFUSED, "another connection is attached to it");
    else if (conn->stream_count >= CONN_MAX_STREAMS)
        conn_send_error(conn, frame->stream, ERROR_LIMIT, "too many programs run at once");
    else
        attach(conn, frame->stream, stream, window);
}

void kept_on_detach(struct conn *conn, const struct frame *frame)
{
    struct stream *stream = stream_find(conn, frame->stream);
    if (!stream)
        return; /* it has ended while this frame was on its way */
    if (!stream->kept) {
        stream_fail(stream, ERROR_REFUSED, "not a kept program");
        return;
    }
    kept_detach(stream);
    conn_send(conn, FRAME_OK, frame->stream, NULL, 0);
}

static uint32_t state_of(const struct stream *stream)
{
    enum kept_state state = !stream->exited ? KEPT_RUNS : WIFSIGNALED(stream->status) ? KEPT_KILLED : KEPT_EXITED;
    return state | (stream->tty ? KEPT_TTY : 0);
}

static uint32_t value_of(const struct stream *stream)
{
    if (!stream->exited)
        return 0;
    return (uint32_t)(WIFSIGNALED(stream->status) ? WTERMSIG(stream->status) : WEXITSTATUS(stream->status));
}

void kept_on_list(struct conn *conn, const struct frame *frame)
{
    size_t room = FRAME_MAX_PAYLOAD;
    unsigned char *at = conn_reserve(conn, &room), *end = at;
    for (const struct kept *kept = conn->agent->kept; kept; kept = kept->next) {
        struct writer writer = {0};
        write_u32(&writer, (uint32_t)kept->stream->pid);
        write_u32(&writer, state_of(kept->stream));
        write_u32(&writer, value_of(kept->stream));
        write_blob(&writer, kept->argv, kept->argv_len);
        memcpy(end, writer.data, writer.len);
        end += writer.len;
    }
    conn_commit(conn, FRAME_OK, frame->stream, (size_t)(end - at));
}
