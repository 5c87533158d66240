/* Starts a child on pipes or on a terminal of its own, in its own session, and learns whether its exec worked. */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "task.h"

/* The child's ends beside ours; -1 where there is none. */
struct plumbing {
    int in, out, err, report;
};

static void close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static bool make_pipe(int *reads, int *writes, const int *ours)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return false;
    *reads = fds[0];
    *writes = fds[1];
    return fcntl(*ours, F_SETFL, O_NONBLOCK) == 0;
}

static bool make_pipes(const struct spawn *spawn, struct spawned *ours, struct plumbing *child)
{
    if (spawn->wants_stdin && !make_pipe(&child->in, &ours->in, &ours->in))
        return false;
    if (!spawn->wants_stdin && (child->in = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
        return false;
    return make_pipe(&ours->out, &child->out, &ours->out) && make_pipe(&ours->err, &child->err, &ours->err);
}

void spawn_resize(int master, uint16_t rows, uint16_t columns)
{
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    ioctl(master, TIOCSWINSZ, &size);
}

/* The child gets the terminal as `in`, `out` and `err` alike; we get its master twice, to watch each way by itself. */
static bool make_terminal(const struct spawn *spawn, struct spawned *ours, struct plumbing *child)
{
    int unlock = 0;
    ours->out = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (ours->out < 0 || ioctl(ours->out, TIOCSPTLCK, &unlock) < 0)
        return false;
    ours->in = fcntl(ours->out, F_DUPFD_CLOEXEC, 3);
    child->in = ioctl(ours->out, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    spawn_resize(ours->out, spawn->rows, spawn->columns);
    return ours->in >= 0 && child->in >= 0;
}

/* The agent is spared when memory runs out; what it starts is not. */
static void be_killable(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t wrote = write(fd, "0", 1);
    (void)wrote;
    close(fd);
}

/* One of the agent's own functions: nothing but its three descriptors is left open. */
static _Noreturn void run_task(const struct spawn *spawn, int report)
{
    struct launch_failure failure = {LAUNCH_USER, 0};
    if (!launch_become(spawn->launch.user)) {
        failure.error = errno;
        if (write(report, &failure, sizeof failure) < 0)
            _exit(126);
        _exit(127);
    }
    syscall(SYS_close_range, 3, ~0U, 0);
    if (chdir("/") < 0)
        _exit(errno);
    _exit(task_run(spawn->launch.argv));
}

static _Noreturn void run_child(const struct spawn *spawn, const struct plumbing *child)
{
    const struct launch *launch = &spawn->launch;
    setsid();
    be_killable();
    launch_adopt(child->in, launch->tty ? child->in : child->out, launch->tty ? child->in : child->err);
    if (spawn->task)
        run_task(spawn, child->report);
    if (launch->tty)
        ioctl(0, TIOCSCTTY, 0);
    struct launch_failure failure = launch_program(launch);
    if (write(child->report, &failure, sizeof failure) < 0)
        _exit(126);
    _exit(127);
}

static bool prepare(const struct spawn *spawn, struct spawned *ours, struct plumbing *child)
{
    if (!make_pipe(&ours->report, &child->report, &ours->report))
        return false;
    return spawn->launch.tty ? make_terminal(spawn, ours, child) : make_pipes(spawn, ours, child);
}

int spawn(const struct spawn *spawn, struct spawned *spawned)
{
    struct plumbing child = {-1, -1, -1, -1};
    *spawned = (struct spawned){-1, -1, -1, -1, -1};
    if (prepare(spawn, spawned, &child))
        spawned->pid = fork();
    if (spawned->pid == 0)
        run_child(spawn, &child);
    int error = errno;
    close_all((const int[]){child.in, child.out, child.err, child.report}, 4);
    if (spawned->pid < 0)
        close_all((const int[]){spawned->in, spawned->out, spawned->err, spawned->report}, 4);
    errno = error;
    return spawned->pid < 0 ? -1 : 0;
}
