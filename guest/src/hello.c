/* Calls the host on vsock port 1023: how it learns, without polling, that the agent is there. */
#include "hello.h"

#include <errno.h>
#include <linux/vm_sockets.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"

enum { HOST_PORT = 1023, TRY_FOR_MS = 10000, FIRST_PAUSE_MS = 2, LONGEST_PAUSE_MS = 256, LINGER_MS = 2000 };

static struct call {
    const struct agent *agent;
    struct watch socket;
    struct timer timer;
    uint64_t give_up_ms;
    unsigned pause_ms;
    bool refused; /* at least once: nobody waits for this call */
} the_call;

static void dial(void *owner);

static void try_again(struct call *call)
{
    watch_close(&call->socket);
    call->refused = true;
    if (now_ms() >= call->give_up_ms)
        return;
    call->timer.fire = dial;
    timer_start(&call->timer, call->pause_ms);
    if (call->pause_ms < LONGEST_PAUSE_MS)
        call->pause_ms *= 2;
}

static void hang_up(void *owner)
{
    struct call *call = owner;
    timer_stop(&call->timer);
    watch_close(&call->socket);
}

static void on_answered(void *owner, uint32_t events)
{
    (void)events;
    hang_up(owner);
}

/* Closing at once could overtake the data in a careless transport: wait until the host closes, or a while. */
static void linger(struct call *call)
{
    shutdown(call->socket.fd, SHUT_WR);
    call->socket.ready = on_answered;
    watch_for(&call->socket, EPOLLIN | EPOLLRDHUP);
    call->timer.fire = hang_up;
    timer_start(&call->timer, LINGER_MS);
}

static bool say_hello(const struct call *call)
{
    struct writer writer = {.len = FRAME_HEADER};
    agent_introduce(call->agent, &writer);
    const struct frame frame = {.type = FRAME_HELLO, .len = (uint32_t)(writer.len - FRAME_HEADER)};
    frame_pack(writer.data, &frame);
    return send(call->socket.fd, writer.data, writer.len, MSG_NOSIGNAL) == (ssize_t)writer.len;
}

static void on_connected(void *owner, uint32_t events)
{
    struct call *call = owner;
    int error = 0;
    socklen_t len = sizeof error;
    (void)events;
    getsockopt(call->socket.fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error == 0 && say_hello(call))
        linger(call);
    else
        try_again(call);
}

static void dial(void *owner)
{
    struct call *call = owner;
    struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_port = HOST_PORT, .svm_cid = VMADDR_CID_HOST};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    call->socket = watch_of(fd, on_connected, call);
    if (connect(fd, (struct sockaddr *)&host, sizeof host) == 0 || errno == EINPROGRESS)
        watch_for(&call->socket, EPOLLOUT);
    else
        try_again(call);
}

void hello_start(const struct agent *agent)
{
    struct call *call = &the_call;
    *call = (struct call){.agent = agent, .socket.fd = -1, .pause_ms = FIRST_PAUSE_MS};
    call->give_up_ms = now_ms() + TRY_FOR_MS;
    call->timer.owner = call;
    dial(call);
}

bool hello_is_under_way(void)
{
    return the_call.agent && the_call.socket.fd >= 0 && !the_call.refused;
}
