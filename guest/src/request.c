/* Takes EXEC, TASK and SYNC apart and starts what they ask for. */
#include "request.h"

#include <errno.h>
#include <string.h>

#include "kept.h"
#include "spawn.h"
#include "stream.h"

enum { MAX_EXEC_ARGS = 4096, MAX_EXEC_ENV = 768 };

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

static void start(struct stream *stream, spawn_fn *spawn, const struct spawn *request)
{
    struct launch_failure failure = {0};
    struct spawned child;
    if (spawn(request, &child, &failure) == 0) {
        stream_adopt(stream, &child);
        stream_started(stream);
    } else if (failure.stage) {
        stream_fail(stream, launch_error(&failure), launch_reason(&failure));
    } else {
        stream_fail(stream, ERROR_SYSTEM, strerror(errno));
    }
}

void request_exec(struct conn *conn, const struct frame *frame)
{
    static const char *argv[MAX_EXEC_ARGS + 1], *env[MAX_EXEC_ENV + 1];
    const struct agent_setup *setup = &conn->agent->setup;
    struct reader reader = reader_of(frame);
    struct stream *stream;
    uint16_t rows = read_u16(&reader), columns = read_u16(&reader);
    uint32_t window = read_u32(&reader);
    read_strings(&reader, argv, MAX_EXEC_ARGS);
    read_strings(&reader, env, MAX_EXEC_ENV);
    const char *workdir = read_string(&reader), *user = read_string(&reader);
    if (reader.bad || !argv[0]) {
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
    if (!(stream = stream_open(conn, frame, STREAM_PROGRAM)))
        return;
    stream->tty = request.launch.tty;
    stream->output.credit = window;
    if (!(frame->flags & EXEC_KEPT) || kept_add(stream, argv))
        start(stream, spawn_program, &request);
}

void request_task(struct conn *conn, const struct frame *frame)
{
    static const char *argv[MAX_EXEC_ARGS + 1];
    struct reader reader = reader_of(frame);
    struct stream *stream;
    uint32_t window = read_u32(&reader);
    read_strings(&reader, argv, MAX_EXEC_ARGS);
    const char *user = read_string(&reader);
    if (reader.bad || !argv[0]) {
        conn_send_error(conn, frame->stream, ERROR_PROTOCOL, "a request for a task that makes no sense");
        return;
    }
    const struct spawn request = {
        .launch = {.argv = argv, .user = user}, .wants_stdin = frame->flags & EXEC_STDIN,
    };
    if (!(stream = stream_open(conn, frame, STREAM_TASK)))
        return;
    stream->output.credit = window;
    start(stream, spawn_task, &request);
}

/* sync() can take long: a child waits for it. */
void request_sync(struct conn *conn, const struct frame *frame)
{
    struct stream *stream = stream_open(conn, frame, STREAM_SYNC);
    if (stream && (stream->pid = spawn_sync()) < 0)
        stream_fail(stream, ERROR_SYSTEM, strerror(errno));
}
