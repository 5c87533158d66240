/* Hands each frame of a connection to what serves it. */
#include "dispatch.h"

#include "dial.h"
#include "identity.h"
#include "kept.h"
#include "request.h"
#include "stream.h"

static void on_hello(struct conn *conn, const struct frame *frame)
{
    struct reader reader = reader_of(frame);
    struct writer writer = {0};
    uint32_t magic = read_u32(&reader);
    uint16_t lowest = read_u16(&reader), highest = read_u16(&reader);
    if (reader.bad || magic != HELLO_MAGIC || conn->greeted) {
        conn_refuse(conn, ERROR_PROTOCOL, "not a hello");
        return;
    }
    if (lowest > PROTOCOL_VERSION || highest < PROTOCOL_VERSION) {
        conn_refuse(conn, ERROR_VERSION, "this agent speaks version 2");
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

static void on_other(struct conn *conn, const struct frame *frame)
{
    if (!stream_frame(conn, frame))
        conn_refuse(conn, ERROR_PROTOCOL, "a frame that the agent does not know, or that breaks its limits");
}

typedef void serve_fn(struct conn *conn, const struct frame *frame);

static serve_fn *const SERVE[] = {
    [FRAME_HELLO] = on_hello,         [FRAME_EXEC] = request_exec,       [FRAME_POWEROFF] = on_power,
    [FRAME_REBOOT] = on_power,        [FRAME_SYNC] = request_sync,       [FRAME_TASK] = request_task,
    [FRAME_DIAL] = dial_on_request,   [FRAME_ATTACH] = kept_on_attach,   [FRAME_DETACH] = kept_on_detach,
    [FRAME_KEPT] = kept_on_list,      [FRAME_IDENTITY] = identity_on_request,
};

void dispatch(struct conn *conn, const struct frame *frame)
{
    serve_fn *serve = frame->type < sizeof SERVE / sizeof *SERVE ? SERVE[frame->type] : NULL;
    if (!conn->greeted && frame->type != FRAME_HELLO)
        conn_refuse(conn, ERROR_PROTOCOL, "the first frame must be a hello");
    else
        (serve ? serve : on_other)(conn, frame);
}
