/* Starts children. A program borrows the agent's memory until its exec (vfork), which costs a fraction of a copy; a task
 * goes on with the agent's code and gets a copy. */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "task.h"

#define OOM_SCORE "/proc/self/oom_score_adj"
#define SPARED "-1000"
#define KILLABLE "0"

enum { LAUNCH_LIMIT_S = 10 };

static int oom_score = -1; /* the agent's own, open, if it is spared */

/* The child's ends; -1 where there is none. */
struct plumbing {
    int in, out, err;
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

static bool prepare(const struct spawn *spawn, struct spawned *ours, struct plumbing *child)
{
    *ours = (struct spawned){-1, -1, -1, -1};
    *child = (struct plumbing){-1, -1, -1};
    return spawn->launch.tty ? make_terminal(spawn, ours, child) : make_pipes(spawn, ours, child);
}

/* Our copies of the child's ends, and where nothing was started our own ends. */
static int conclude(struct spawned *ours, const struct plumbing *child)
{
    int error = errno;
    close_all((const int[]){child->in, child->out, child->err}, 3);
    if (ours->pid < 0)
        close_all((const int[]){ours->in, ours->out, ours->err}, 3);
    errno = error;
    return ours->pid < 0 ? -1 : 0;
}

/* The agent is spared when memory runs out; what it starts is not. A child could say so itself, but its first look into
 * /proc costs more than all the rest of its start: so it inherits the value that the agent has while it is started. */
static void set_oom_score(const char *value)
{
    int error = errno;
    if (oom_score >= 0 && pwrite(oom_score, value, strlen(value), 0) < 0)
        LOG("agent: oom_score_adj stays as it is: ", strerror(errno));
    errno = error;
}

void spawn_init(void)
{
    char value[16] = "";
    int fd = open(OOM_SCORE, O_RDWR | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, value, sizeof value - 1);
    bool spared = got > 0 && strncmp(value, SPARED, strlen(SPARED)) == 0;
    if (fd >= 0 && !spared)
        close(fd);
    oom_score = spared ? fd : -1;
}

static void settle_in(const struct plumbing *child, bool tty)
{
    setsid();
    launch_adopt(child->in, tty ? child->in : child->out, tty ? child->in : child->err);
    if (tty)
        ioctl(0, TIOCSCTTY, 0);
}

/* The agent waits for this child's exec, and must not for ever if a dead file system holds it: exec clears the timer. */
static void limit_launch(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    const struct itimerspec limit = {.it_value.tv_sec = LAUNCH_LIMIT_S};
    timer_t timer;
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) == 0)
        timer_settime(timer, 0, &limit, NULL);
}

/* In the agent's memory: what is written here the agent finds. */
static _Noreturn void run_program(const struct spawn *spawn, const struct plumbing *child, struct launch_failure *failure)
{
    limit_launch();
    settle_in(child, spawn->launch.tty);
    *failure = launch_program(&spawn->launch);
    _exit(127);
}

int spawn_program(const struct spawn *spawn, struct spawned *spawned, struct launch_failure *failure)
{
    struct plumbing child;
    bool ready = prepare(spawn, spawned, &child);
    set_oom_score(KILLABLE);
    if (ready && (spawned->pid = vfork()) == 0)
        run_program(spawn, &child, failure);
    set_oom_score(SPARED);
    if (failure->stage) {
        waitpid(spawned->pid, NULL, 0);
        spawned->pid = -1;
    }
    return conclude(spawned, &child);
}

/* Nothing but its three descriptors is left open. */
static _Noreturn void run_task(const struct spawn *spawn, const struct plumbing *child, const struct identity *user)
{
    settle_in(child, false);
    syscall(SYS_close_range, 3, ~0U, 0);
    if (chdir("/") < 0 || (user && !launch_become(user)))
        _exit(errno);
    _exit(task_run(spawn->launch.argv));
}

int spawn_task(const struct spawn *spawn, struct spawned *spawned, struct launch_failure *failure)
{
    const char *user = spawn->launch.user;
    struct identity identity;
    struct plumbing child;
    if (user && !launch_find(user, &identity)) {
        *failure = (struct launch_failure){LAUNCH_USER, ENOENT};
        return -1;
    }
    bool ready = prepare(spawn, spawned, &child);
    set_oom_score(KILLABLE);
    if (ready && (spawned->pid = fork()) == 0)
        run_task(spawn, &child, user ? &identity : NULL);
    set_oom_score(SPARED);
    return conclude(spawned, &child);
}

pid_t spawn_sync(void)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    syscall(SYS_close_range, 3, ~0U, 0); /* no pipe or connection is to stay open for our sake */
    sync();
    _exit(0);
}

void spawn_signal(pid_t pid, int number)
{
    if (kill(-pid, number) < 0)
        kill(pid, number);
}
