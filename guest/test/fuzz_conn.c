/* Fuzzer: what a host sends, what children and ports do, and in which order. The input is a script of steps; children and
 * ports are made here (fuzz_world.c), so that nothing runs and nothing is connected to. */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "conn.h"
#include "fuzz.h"
#include "fuzz_world.h"
#include "loop.h"
#include "stream.h"

enum { HOSTS = 3, TURNS = 3, MAX_STEPS = 300 };

enum step { STEP_BYTES, STEP_FRAME, STEP_READ, STEP_SPEAK, STEP_LISTEN, STEP_CLOSE, STEP_EXIT, STEP_TURN, STEP_HANG_UP, STEPS };

struct script {
    const uint8_t *at, *end;
};

static struct agent agent;
static struct watch always; /* readable for ever, so that a turn of the loop never waits */
static int hosts[HOSTS];

static uint8_t next(struct script *script)
{
    return script->at < script->end ? *script->at++ : 0;
}

static size_t next_len(struct script *script)
{
    size_t low = next(script);
    return low | (size_t)next(script) << 8;
}

/* Up to `len` bytes of the script. */
static const uint8_t *next_bytes(struct script *script, size_t *len)
{
    const uint8_t *at = script->at;
    if (*len > (size_t)(script->end - at))
        *len = (size_t)(script->end - at);
    script->at += *len;
    return at;
}

static void ignore(void *owner, uint32_t events)
{
    (void)owner;
    (void)events;
}

static void open_once(void)
{
    static const char *const no_env[] = {NULL};
    if (always.ready)
        return;
    signal(SIGPIPE, SIG_IGN);
    loop_open();
    always = watch_of(eventfd(1, EFD_CLOEXEC), ignore, NULL);
    watch_for(&always, EPOLLIN);
    agent.setup = (struct agent_setup){.listener = -1, .power = POWER_OWN_INIT, .env = no_env};
}

static void hello(int host)
{
    static const uint8_t frame[] = {'F', 'K', 1, 0, 0, 0, 0, 0, 32, 0, 0, 0, 'F', 'K', 'I', 'N', 2, 0, 2, 0, [43] = 0};
    if (write(host, frame, sizeof frame) != sizeof frame)
        abort();
}

static int host_of(unsigned which)
{
    int pair[2], *host = &hosts[which % HOSTS];
    if (*host >= 0)
        return *host;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        abort();
    *host = pair[0];
    conn_open(&agent, pair[1]);
    if (which < 128) /* else the script says hello, or does not */
        hello(*host);
    return *host;
}

static void send_frame(struct script *script, int host)
{
    struct frame frame = {.type = next(script), .flags = next(script), .stream = next(script)};
    unsigned char header[FRAME_HEADER];
    size_t len = next_len(script);
    const uint8_t *payload = next_bytes(script, &len);
    frame.len = (uint32_t)len;
    frame_pack(header, &frame);
    if (send(host, header, sizeof header, MSG_NOSIGNAL) == sizeof header && len)
        send(host, payload, len, MSG_NOSIGNAL);
}

static void send_bytes(struct script *script, int host)
{
    size_t len = next(script);
    const uint8_t *bytes = next_bytes(script, &len);
    send(host, bytes, len, MSG_NOSIGNAL);
}

static void hang_up(unsigned which)
{
    int *host = &hosts[which % HOSTS];
    if (*host >= 0)
        close(*host);
    *host = -1;
}

static void take_step(struct script *script)
{
    static char sink[4 * 65536];
    enum step step = next(script) % STEPS;
    unsigned which = next(script);
    switch (step) {
    case STEP_BYTES:
        send_bytes(script, host_of(which));
        break;
    case STEP_FRAME:
        send_frame(script, host_of(which));
        break;
    case STEP_READ:
        if (recv(host_of(which), sink, next_len(script) * 4, 0) == 0)
            hang_up(which);
        break;
    case STEP_SPEAK:
        world_speak(which, next_len(script));
        break;
    case STEP_LISTEN:
        world_listen(which, next_len(script));
        break;
    case STEP_CLOSE:
        world_close(which);
        break;
    case STEP_EXIT:
        world_exit(&agent, which);
        break;
    case STEP_HANG_UP:
        hang_up(which);
        break;
    default:
        break;
    }
    for (int i = 0; i < TURNS; i++)
        loop_turn();
}

/* As the agent ends: nothing may be left. */
static void end(void)
{
    for (unsigned i = 0; i < HOSTS; i++)
        hang_up(i);
    while (agent.conns)
        conn_close(agent.conns);
    while (agent.detached)
        stream_drop(agent.detached);
    loop_turn();
    world_end();
    if (agent.conn_count || agent.stream_count || agent.kept)
        abort();
}

static int lowest_free(void)
{
    int fd = dup(0);
    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script script = {.at = data, .end = data + size};
    open_once();
    int before = lowest_free();
    memset(hosts, -1, sizeof hosts);
    for (int i = 0; i < MAX_STEPS && script.at < script.end; i++)
        take_step(&script);
    end();
    if (lowest_free() != before)
        abort(); /* a descriptor leaked */
    return 0;
}
