/* Stands in for spawn.c and loopback.c, whose children are entries in a table here, and for power.c and renew.c, which do
 * nothing. */
#include "fuzz_world.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "loopback.h"
#include "power.h"
#include "renew.h"
#include "spawn.h"

enum { MAX_CHILDREN = 256, FIRST_PID = 100 };

struct child {
    bool runs, killed;
    int in, out, err; /* the child's ends; for a port `in` and `out` are its socket */
};

static struct child children[MAX_CHILDREN];
static size_t child_count;
static bool refuses_later;

static void make_pipe(int *reads, int *writes)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        abort();
    *reads = fds[0];
    *writes = fds[1];
}

/* A stdin that is soon full, and does not grow. */
static void make_narrow(int *reads, int *writes)
{
    static const int small = 1;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        abort();
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    *reads = pair[0];
    *writes = pair[1];
}

static int start(const struct spawn *spawn, struct spawned *spawned, struct launch_failure *failure)
{
    struct child *child = &children[child_count];
    char name = spawn->launch.argv[0][0];
    *spawned = (struct spawned){-1, -1, -1, -1};
    errno = EAGAIN;
    if (name >= 'x' && name <= 'z')
        *failure = (struct launch_failure){name - 'x' + LAUNCH_USER, ENOENT};
    if (name == 'w' || failure->stage || child_count == MAX_CHILDREN)
        return -1;
    *child = (struct child){.runs = true, .in = -1, .out = -1, .err = -1};
    if (spawn->wants_stdin)
        make_narrow(&child->in, &spawned->in);
    make_pipe(&spawned->out, &child->out);
    if (!spawn->launch.tty)
        make_pipe(&spawned->err, &child->err);
    spawned->pid = FIRST_PID + (pid_t)child_count++;
    return 0;
}

void spawn_init(void)
{
}

int spawn_program(const struct spawn *spawn, struct spawned *spawned, struct launch_failure *failure)
{
    return start(spawn, spawned, failure);
}

int spawn_task(const struct spawn *spawn, struct spawned *spawned, struct launch_failure *failure)
{
    return start(spawn, spawned, failure);
}

pid_t spawn_sync(void)
{
    if (child_count == MAX_CHILDREN)
        return -1;
    children[child_count] = (struct child){.runs = true, .in = -1, .out = -1, .err = -1};
    return FIRST_PID + (pid_t)child_count++;
}

void spawn_signal(pid_t pid, int number)
{
    struct child *child = &children[pid - FIRST_PID];
    if (!child->runs)
        abort(); /* that pid may be somebody else's by now */
    child->killed = child->killed || number == SIGKILL;
}

void spawn_resize(int master, uint16_t rows, uint16_t columns)
{
    (void)rows;
    (void)columns;
    if (fcntl(master, F_GETFD) < 0)
        abort();
}

/* Some ports refuse at once, some by one family only, and some when they have made us wait. */
int loopback_connect(enum loopback_family family, uint16_t port)
{
    int pair[2];
    errno = ECONNREFUSED;
    if (port % 8 == 2 || (port % 4 == 1 && family == LOOPBACK_IPV4) || child_count == MAX_CHILDREN)
        return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        abort();
    children[child_count++] = (struct child){.in = pair[0], .out = pair[0], .err = -1};
    refuses_later = port % 16 == 12;
    return pair[1];
}

int loopback_result(int fd)
{
    if (fcntl(fd, F_GETFD) < 0)
        abort();
    return refuses_later ? ECONNREFUSED : 0;
}

void power_ask(int number)
{
    (void)number;
}

/* Fails for some names, as the kernel may. */
int renew(const struct config *config)
{
    if (!config->hostname || config->hostname[0] < 'x')
        return 0;
    errno = EPERM;
    return log_errno("hostname", config->hostname);
}

static struct child *find(unsigned which)
{
    return child_count ? &children[which % child_count] : NULL;
}

void world_speak(unsigned which, size_t len)
{
    static const char noise[65536];
    struct child *child = find(which);
    if (!child)
        return;
    int fd = which & 128 ? child->err : child->out;
    if (fd >= 0 && write(fd, noise, len) < 0 && errno != EAGAIN && errno != EPIPE)
        abort();
}

void world_listen(unsigned which, size_t len)
{
    static char sink[65536];
    struct child *child = find(which);
    if (child && child->in >= 0 && read(child->in, sink, len) < 0 && errno != EAGAIN && errno != ECONNRESET)
        abort();
}

static void close_ends(struct child *child)
{
    if (child->in >= 0)
        close(child->in);
    if (child->out >= 0 && child->out != child->in)
        close(child->out);
    if (child->err >= 0)
        close(child->err);
    child->in = child->out = child->err = -1;
}

void world_close(unsigned which)
{
    struct child *child = find(which);
    if (child)
        close_ends(child);
}

void world_exit(struct agent *agent, unsigned which)
{
    struct child *child = find(which);
    if (!child || !child->runs)
        return;
    child->runs = false;
    if (which & 64)
        close_ends(child); /* else others hold its pipes open */
    agent_reaped(agent, FIRST_PID + (pid_t)(child - children), child->killed ? SIGKILL : (int)(which & 31) << 8);
}

void world_end(void)
{
    for (size_t i = 0; i < child_count; i++)
        close_ends(&children[i]);
    child_count = 0;
}
