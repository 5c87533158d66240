/* One program's life on a connection: start, output within the host's credit, input within ours, exit. */
#include "stream.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spawn.h"

enum { AGENT_MAX_STREAMS = 512, MAX_EXEC_ARGS = 4096, MAX_EXEC_ENV = 768 };

static const uint8_t OUTPUT_FRAME[2] = {FRAME_STDOUT, FRAME_STDERR};

static void on_report(void *owner, uint32_t events);
static void on_output(void *owner, uint32_t events);
static void on_input(void *owner, uint32_t events);

static struct stream *find_stream(struct conn *conn, uint32_t id)
{
    struct stream *stream = conn->streams;
    while (stream && stream->id != id)
        stream = stream->next;
    return stream;
}

static struct stream *add_stream(struct conn *conn, uint32_t id)
{
    static const struct watch none = {.fd = -1};
    struct stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    stream->conn = conn;
    stream->id = id;
    stream->report = stream->output[0] = stream->output[1] = stream->input = none;
    stream->next = conn->streams;
    conn->streams = stream;
    conn->stream_count++;
    conn->agent->stream_count++;
    return stream;
}

static void drop_stream(struct stream *stream)
{
    struct stream **at = &stream->conn->streams;
    while (*at != stream)
        at = &(*at)->next;
    *at = stream->next;
    stream->conn->stream_count--;
    stream->conn->agent->stream_count--;
    watch_close(&stream->report);
    watch_close(&stream->output[0]);
    watch_close(&stream->output[1]);
    watch_close(&stream->input);
    free(stream->pending);
    stream->pending = NULL;
    loop_free(&stream->garbage);
}

/* To the whole group; to the child alone as long as it has not made its group yet. */
static void signal_group(const struct stream *stream, int number)
{
    if (stream->exited || stream->pid <= 0)
        return;
    if (kill(-stream->pid, number) < 0)
        kill(stream->pid, number);
}

void stream_abort(struct stream *stream)
{
    if (!stream->syncs)
        signal_group(stream, SIGKILL);
    drop_stream(stream);
}

/* Whether one more may be started; says so if not. */
static bool admit(struct conn *conn, uint32_t id)
{
    if (conn->stream_count < CONN_MAX_STREAMS && conn->agent->stream_count < AGENT_MAX_STREAMS)
        return true;
    conn_send_error(conn, id, ERROR_LIMIT, "too many programs run at once");
    return false;
}

static void watch_outputs(struct stream *stream)
{
    for (int i = 0; i < 2; i++)
        watch_for(&stream->output[i], stream->credit ? EPOLLIN : 0);
}

static void adopt_child(struct stream *stream, const struct spawned *child)
{
    stream->pid = child->pid;
    stream->report = watch_of(child->report, on_report, stream);
    stream->output[0] = watch_of(child->out, on_output, stream);
    stream->output[1] = watch_of(child->err, on_output, stream);
    stream->input = watch_of(child->in, on_input, stream);
    watch_for(&stream->report, EPOLLIN);
    watch_outputs(stream);
}

static void start(struct conn *conn, uint32_t id, const struct spawn *request, uint32_t window)
{
    struct spawned child;
    struct stream *stream = add_stream(conn, id);
    if (!stream) {
        conn_send_error(conn, id, ERROR_SYSTEM, strerror(ENOMEM));
        return;
    }
    stream->tty = request->launch.tty;
    stream->credit = window;
    if (spawn(request, &child) < 0) {
        conn_send_error(conn, id, ERROR_SYSTEM, strerror(errno));
        drop_stream(stream);
        return;
    }
    adopt_child(stream, &child);
}

void stream_exec(struct conn *conn, const struct frame *frame)
{
    static const char *argv[MAX_EXEC_ARGS + 1], *env[MAX_EXEC_ENV + 1];
    const struct agent_setup *setup = &conn->agent->setup;
    struct reader reader = reader_of(frame);
    uint16_t rows = read_u16(&reader), columns = read_u16(&reader);
    uint32_t window = read_u32(&reader);
    read_strings(&reader, argv, MAX_EXEC_ARGS);
    read_strings(&reader, env, MAX_EXEC_ENV);
    const char *workdir = read_string(&reader), *user = read_string(&reader);
    if (reader.bad || !argv[0] || find_stream(conn, frame->stream)) {
        conn_send_error(conn, frame->stream, ERROR_PROTOCOL, "a request to run a program that makes no sense");
        return;
    }
    const struct spawn request = {
        .launch = {
            .argv = argv, .image_env = setup->env, .given_env = env, .tty = frame->flags & EXEC_TTY,
            .workdir = workdir ? workdir : setup->workdir, .user = user ? user : setup->user,
        },
        .wants_stdin = frame->flags & EXEC_STDIN, .rows = rows, .columns = columns,
    };
    if (admit(conn, frame->stream))
        start(conn, frame->stream, &request, window);
}

void stream_task(struct conn *conn, const struct frame *frame)
{
    static const char *argv[MAX_EXEC_ARGS + 1];
    struct reader reader = reader_of(frame);
    uint32_t window = read_u32(&reader);
    read_strings(&reader, argv, MAX_EXEC_ARGS);
    const char *user = read_string(&reader);
    if (reader.bad || !argv[0] || find_stream(conn, frame->stream)) {
        conn_send_error(conn, frame->stream, ERROR_PROTOCOL, "a request for a task that makes no sense");
        return;
    }
    const struct spawn request = {
        .launch = {.argv = argv, .user = user}, .task = true, .wants_stdin = frame->flags & EXEC_STDIN,
    };
    if (admit(conn, frame->stream))
        start(conn, frame->stream, &request, window);
}

/* sync() can take long: a child waits for it. */
void stream_sync(struct conn *conn, const struct frame *frame)
{
    struct stream *stream = NULL;
    if (!admit(conn, frame->stream))
        return;
    if (!find_stream(conn, frame->stream))
        stream = add_stream(conn, frame->stream);
    if (!stream) {
        conn_send_error(conn, frame->stream, ERROR_PROTOCOL, "that stream is in use");
        return;
    }
    stream->syncs = true;
    stream->pid = fork();
    if (stream->pid == 0) {
        syscall(SYS_close_range, 3, ~0U, 0); /* no pipe or connection is to stay open for our sake */
        sync();
        _exit(0);
    }
    if (stream->pid < 0) {
        conn_send_error(conn, stream->id, ERROR_SYSTEM, strerror(errno));
        drop_stream(stream);
    }
}

static void send_started(struct stream *stream)
{
    struct writer writer = {0};
    write_u32(&writer, (uint32_t)stream->pid);
    write_u32(&writer, STDIN_WINDOW);
    conn_send(stream->conn, FRAME_STARTED, stream->id, writer.data, writer.len);
    stream->started = true;
}

static enum error_code launch_error(const struct launch_failure *failure)
{
    if (failure->stage == LAUNCH_USER)
        return ERROR_USER;
    if (failure->stage == LAUNCH_WORKDIR)
        return ERROR_WORKDIR;
    return failure->error == ENOENT || failure->error == ENOTDIR ? ERROR_NOT_FOUND : ERROR_NOT_EXECUTABLE;
}

static const char *launch_reason(const struct launch_failure *failure)
{
    bool no_user = failure->stage == LAUNCH_USER && failure->error == ENOENT;
    return no_user ? "no such user or group in the image" : strerror(failure->error);
}

static void send_exit(struct stream *stream)
{
    struct writer writer = {0};
    bool killed = WIFSIGNALED(stream->status);
    write_u32(&writer, killed ? EXIT_SIGNAL : EXIT_CODE);
    write_u32(&writer, (uint32_t)(killed ? WTERMSIG(stream->status) : WEXITSTATUS(stream->status)));
    conn_send(stream->conn, FRAME_EXIT, stream->id, writer.data, writer.len);
}

/* Learn how the exec went, if that is known. False when the stream has ended with it. */
static bool settle_report(struct stream *stream)
{
    struct launch_failure failure;
    if (stream->report.fd < 0)
        return true;
    ssize_t got = read(stream->report.fd, &failure, sizeof failure);
    if (got < 0)
        return true;
    watch_close(&stream->report);
    if (got == sizeof failure) {
        conn_send_error(stream->conn, stream->id, launch_error(&failure), launch_reason(&failure));
        drop_stream(stream);
        return false;
    }
    send_started(stream);
    return true;
}

/* After the program and its last output comes its exit, and nothing more. */
static void finish_if_done(struct stream *stream)
{
    if (!stream->exited || stream->output[0].fd >= 0 || stream->output[1].fd >= 0)
        return;
    send_exit(stream);
    drop_stream(stream);
}

/* Move one read's worth of output to the connection. */
static void pump_output(struct stream *stream, int which)
{
    struct watch *watch = &stream->output[which];
    bool counted = stream->exited && !stream->tty;
    size_t room = counted && stream->left[which] < stream->credit ? stream->left[which] : stream->credit;
    unsigned char *at = conn_reserve(stream->conn, &room);
    if (!at || !room) {
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
    conn_commit(stream->conn, OUTPUT_FRAME[which], stream->id, (size_t)got);
    stream->credit -= (uint32_t)got;
    if (counted && (stream->left[which] -= (size_t)got) == 0)
        watch_close(watch); /* the rest is of others that still hold the pipe */
}

static void on_output(void *owner, uint32_t events)
{
    struct stream *stream = owner;
    struct conn *conn = stream->conn;
    (void)events;
    if (!stream->started && !settle_report(stream)) {
        conn_flush(conn);
        return;
    }
    for (int i = 0; i < 2; i++)
        if (stream->output[i].fd >= 0 && stream->output[i].events)
            pump_output(stream, i);
    finish_if_done(stream);
    conn_flush(conn);
}

static void on_report(void *owner, uint32_t events)
{
    struct stream *stream = owner;
    struct conn *conn = stream->conn;
    (void)events;
    settle_report(stream);
    conn_flush(conn);
}

/* Give credit back in large pieces, and at the end of what there was. */
static void return_credit(struct stream *stream)
{
    struct writer writer = {0};
    if (!stream->taken || (stream->pending_len && stream->taken < STDIN_WINDOW / 2))
        return;
    write_u32(&writer, stream->taken);
    conn_send(stream->conn, FRAME_WINDOW, stream->id, writer.data, writer.len);
    stream->taken = 0;
}

static void end_input(struct stream *stream)
{
    static const unsigned char end_of_file = 4; /* what a terminal takes for the end: control-D */
    if (!stream->input_ends || stream->pending_len)
        return;
    if (stream->tty && write(stream->input.fd, &end_of_file, 1) < 0)
        return;
    watch_close(&stream->input);
}

/* Write what the program takes. What nobody will ever read is dropped, so that the host does not wait. */
static void pump_input(struct stream *stream)
{
    if (stream->pending_len) {
        ssize_t wrote = write(stream->input.fd, stream->pending + stream->pending_start, stream->pending_len);
        if (wrote < 0 && errno != EAGAIN && errno != EINTR)
            wrote = (ssize_t)stream->pending_len;
        if (wrote > 0) {
            stream->pending_start += (size_t)wrote;
            stream->pending_len -= (size_t)wrote;
            stream->taken += (uint32_t)wrote;
        }
    }
    if (!stream->pending_len)
        stream->pending_start = 0;
    return_credit(stream);
    end_input(stream);
    watch_for(&stream->input, stream->pending_len ? EPOLLOUT : 0);
}

static void on_input(void *owner, uint32_t events)
{
    struct stream *stream = owner;
    (void)events;
    pump_input(stream);
    conn_flush(stream->conn);
}

/* False when the host sends more than its credit. */
static bool take_input(struct stream *stream, const struct frame *frame)
{
    if (stream->pending_len + stream->taken + frame->len > STDIN_WINDOW)
        return false;
    if (stream->input.fd < 0 || stream->input_ends)
        return true;
    if (!stream->pending && !(stream->pending = malloc(STDIN_WINDOW)))
        return false;
    if (stream->pending_start) {
        memmove(stream->pending, stream->pending + stream->pending_start, stream->pending_len);
        stream->pending_start = 0;
    }
    memcpy(stream->pending + stream->pending_len, frame->payload, frame->len);
    stream->pending_len += frame->len;
    stream->input_ends = frame->flags & STDIN_EOF;
    pump_input(stream);
    return true;
}

static bool take_credit(struct stream *stream, struct reader *reader)
{
    uint32_t more = read_u32(reader);
    if (reader->bad || more > UINT32_MAX - stream->credit)
        return false;
    stream->credit += more;
    watch_outputs(stream);
    return true;
}

static bool take_size(struct stream *stream, struct reader *reader)
{
    uint16_t rows = read_u16(reader), columns = read_u16(reader);
    if (!reader->bad && stream->tty && stream->output[0].fd >= 0)
        spawn_resize(stream->output[0].fd, rows, columns);
    return !reader->bad;
}

static bool take_signal(struct stream *stream, struct reader *reader)
{
    uint32_t number = read_u32(reader);
    if (!reader->bad && number > 0 && number < NSIG && !stream->syncs)
        signal_group(stream, (int)number);
    return !reader->bad;
}

bool stream_frame(struct conn *conn, const struct frame *frame)
{
    struct stream *stream = find_stream(conn, frame->stream);
    struct reader reader = reader_of(frame);
    bool known = frame->type == FRAME_STDIN || (frame->type >= FRAME_WINDOW && frame->type <= FRAME_SIGNAL);
    if (!known || !stream)
        return known; /* of a stream that has ended while this frame was on its way */
    switch (frame->type) {
    case FRAME_STDIN:
        return take_input(stream, frame);
    case FRAME_WINDOW:
        return take_credit(stream, &reader);
    case FRAME_WINSIZE:
        return take_size(stream, &reader);
    default:
        return take_signal(stream, &reader);
    }
}

/* A pipe may be held open by others for ever: only what is in it now is the program's last word. */
static void count_rest(struct stream *stream)
{
    for (int i = 0; i < 2; i++) {
        int rest = 0;
        if (stream->output[i].fd < 0)
            continue;
        ioctl(stream->output[i].fd, FIONREAD, &rest);
        stream->left[i] = rest > 0 ? (size_t)rest : 0;
        if (!stream->left[i])
            watch_close(&stream->output[i]);
    }
}

void stream_reaped(struct stream *stream, int status)
{
    struct conn *conn = stream->conn;
    stream->exited = true;
    stream->status = status;
    if (stream->syncs) {
        conn_send(conn, FRAME_OK, stream->id, NULL, 0);
        drop_stream(stream);
    } else if (settle_report(stream)) {
        if (!stream->tty)
            count_rest(stream);
        finish_if_done(stream);
    }
    conn_flush(conn);
}

void stream_resume_all(struct conn *conn)
{
    for (struct stream *stream = conn->streams; stream; stream = stream->next)
        watch_outputs(stream);
}

void stream_hang_up_all(struct conn *conn)
{
    for (struct stream *stream = conn->streams; stream; stream = stream->next) {
        signal_group(stream, SIGHUP);
        signal_group(stream, SIGCONT);
    }
}
