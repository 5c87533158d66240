/* The agent: accepts the host's connections, reaps what ran for them, and passes on the wish to end the machine. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "conn.h"
#include "hello.h"
#include "log.h"
#include "power.h"
#include "spawn.h"
#include "stream.h"

enum { AGENT_PORT = 1024, MAX_CONNECTIONS = 256, BACKLOG = 64 };

int agent_listen(void)
{
    struct sockaddr_vm address = {
        .svm_family = AF_VSOCK, .svm_port = AGENT_PORT, .svm_cid = VMADDR_CID_ANY,
    };
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

bool agent_has_device(void)
{
    unsigned cid = VMADDR_CID_ANY;
    int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    int result = ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid);
    close(fd);
    return result == 0 && cid != VMADDR_CID_ANY && cid != VMADDR_CID_LOCAL;
}

void agent_introduce(const struct agent *agent, struct writer *writer)
{
    const struct agent_setup *setup = &agent->setup;
    char hostname[64 + 1] = ""; /* as it is now: a fork has another than its boot gave it */
    gethostname(hostname, sizeof hostname);
    write_u32(writer, HELLO_MAGIC);
    write_u16(writer, PROTOCOL_VERSION);
    write_u16(writer, PROTOCOL_VERSION);
    write_u32(writer, (uint32_t)getpid());
    write_u32(writer, setup->times.init_ms);
    write_u32(writer, setup->times.root_ms);
    write_u32(writer, setup->times.network_ms);
    write_u32(writer, setup->times.ready_ms);
    write_blob(writer, hostname, strnlen(hostname, sizeof hostname - 1));
}

bool agent_power(const struct agent *agent, bool restart)
{
    if (agent->setup.power == POWER_REFUSED)
        return false;
    /* Every init takes SIGINT for control-alt-delete, and a reset is how a microVM ends. */
    int number = agent->setup.power == POWER_IMAGE_INIT ? SIGINT : restart ? SIGTERM : SIGUSR2;
    power_ask(number);
    return true;
}

/* Programs in the guest could connect over vsock's loopback; only the host may. */
static bool is_host(const struct sockaddr_vm *peer)
{
    return peer->svm_family == AF_VSOCK && peer->svm_cid == VMADDR_CID_HOST;
}

static void on_listener(void *owner, uint32_t events)
{
    struct agent *agent = owner;
    struct sockaddr_vm peer = {0};
    socklen_t len = sizeof peer;
    struct sockaddr *address = agent->setup.vsock ? (struct sockaddr *)&peer : NULL;
    (void)events;
    int fd = accept4(agent->listener.fd, address, address ? &len : NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (agent->conn_count >= MAX_CONNECTIONS || (agent->setup.vsock && !is_host(&peer)))
        close(fd);
    else
        conn_open(agent, fd);
}

static struct stream *running(struct stream *list, pid_t pid)
{
    while (list && (list->pid != pid || list->exited))
        list = list->next;
    return list;
}

static struct stream *stream_of(const struct agent *agent, pid_t pid)
{
    struct stream *found;
    for (struct conn *conn = agent->conns; conn; conn = conn->next)
        if ((found = running(conn->streams, pid)))
            return found;
    return running(agent->detached, pid);
}

void agent_reaped(struct agent *agent, pid_t pid, int status)
{
    struct stream *stream = stream_of(agent, pid);
    if (stream)
        stream_reaped(stream, status);
}

static void reap(struct agent *agent)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        agent_reaped(agent, pid, status);
}

static void end_streams(struct agent *agent)
{
    agent->ending = true;
    watch_close(&agent->listener);
    for (struct conn *conn = agent->conns; conn; conn = conn->next)
        stream_hang_up_all(conn->streams);
    stream_hang_up_all(agent->detached);
}

static void on_signal(void *owner, uint32_t events)
{
    struct agent *agent = owner;
    struct signalfd_siginfo info;
    (void)events;
    while (read(agent->signals.fd, &info, sizeof info) == sizeof info)
        if (info.ssi_signo == SIGTERM)
            end_streams(agent);
    reap(agent);
}

/* No signal ends the agent by surprise: all are blocked, two are read. */
static int open_signals(void)
{
    sigset_t all, wanted;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGCHLD);
    sigaddset(&wanted, SIGTERM);
    return signalfd(-1, &wanted, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* Several descriptors per program: the usual soft limit of 1024 would be the first bound met. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int open_agent(struct agent *agent, const struct agent_setup *setup)
{
    agent->setup = *setup;
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    raise_file_limit();
    spawn_init();
    int signals = open_signals();
    if (signals < 0 || loop_open() < 0)
        return log_errno("agent", NULL);
    agent->signals = watch_of(signals, on_signal, agent);
    watch_for(&agent->signals, EPOLLIN);
    agent->listener = watch_of(setup->listener, on_listener, agent);
    watch_for(&agent->listener, EPOLLIN);
    return 0;
}

static void close_agent(struct agent *agent)
{
    while (agent->conns) {
        conn_flush(agent->conns);
        if (agent->conns)
            conn_close(agent->conns);
    }
    watch_close(&agent->signals);
    loop_close();
}

int agent_run(const struct agent_setup *setup)
{
    static struct agent agent;
    if (open_agent(&agent, setup) < 0)
        return 1;
    if (setup->vsock && setup->listener >= 0)
        hello_start(&agent);
    while (!agent.ending || agent.stream_count || hello_is_under_way())
        loop_turn();
    close_agent(&agent);
    return 0;
}
