/* Process 1 for as long as the machine lives: entrypoint, agent, orphans, signals, and an orderly end. */
#include "supervise.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "entrypoint.h"
#include "log.h"
#include "mount.h"
#include "text.h"

/* Together less than the host waits before it pulls the plug, so that layers on disk end clean. */
enum { TERM_GRACE_MS = 7000, KILL_GRACE_MS = 1000 };

enum { AGENT_PAUSE_MS = 1000 };

_Noreturn void reset_machine(void)
{
    tcdrain(2);
    reboot(RB_AUTOBOOT);
    _exit(1); /* the kernel panics, which ends the machine too */
}

/* What process 1 looks after. `entrypoint` is 0 where there is none; `agent` is -1 while none runs. */
struct household {
    const struct config *config;
    start_agent_fn *start_agent;
    void *context;
    pid_t entrypoint, agent;
    uint64_t agent_due_ms; /* when to start the agent at the earliest */
};

static void run_agent(struct household *house)
{
    house->agent_due_ms = now_ms() + AGENT_PAUSE_MS;
    house->agent = house->start_agent(house->context);
}

static void report_exit(const char *what, const char *name, int status, const char *consequence)
{
    struct text how = {0};
    text_add(&how, WIFSIGNALED(status) ? " was killed by signal " : " exited with ");
    text_number(&how, (unsigned long)(WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)));
    LOG(what, name, how.data, ": ", consequence);
}

/* Reap everything that has ended. True when the entrypoint was among it. */
static bool reap(struct household *house)
{
    bool ended = false;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == house->entrypoint) {
            report_exit("entrypoint ", house->config->argv[0], status, "the machine ends");
            ended = true;
        } else if (pid == house->agent) {
            report_exit("agent", "", status, "it is started again"); /* who connects meanwhile waits: we listen too */
            house->agent = -1;
        }
    return ended;
}

static struct timespec timespec_of(uint64_t ms)
{
    return (struct timespec){(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
}

/* Wait until no process is left; false when the time is up. */
static bool await_silence(const sigset_t *signals, unsigned limit_ms)
{
    uint64_t deadline = now_ms() + limit_ms;
    for (;;) {
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        if (waitpid(-1, NULL, WNOHANG) < 0)
            return true;
        uint64_t now = now_ms();
        if (now >= deadline)
            return false;
        struct timespec left = timespec_of(deadline - now);
        sigtimedwait(signals, NULL, &left);
    }
}

static _Noreturn void end_machine(const sigset_t *signals, pid_t entrypoint)
{
    kill(-1, SIGTERM);
    if (entrypoint > 0)
        kill(-entrypoint, SIGHUP); /* shells on a terminal ignore SIGTERM */
    kill(-1, SIGCONT);
    if (!await_silence(signals, TERM_GRACE_MS)) {
        kill(-1, SIGKILL);
        await_silence(signals, KILL_GRACE_MS);
    }
    unmount_all();
    reset_machine();
}

static sigset_t block_signals(void)
{
    static const int numbers[] = {SIGCHLD, SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP, SIGQUIT, SIGWINCH};
    sigset_t signals;
    sigemptyset(&signals);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaddset(&signals, numbers[i]);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    return signals;
}

static const char *meaning(int number)
{
    switch (number) {
    case SIGUSR1:
        return "halt";
    case SIGUSR2:
        return "poweroff";
    case SIGINT:
        return "control-alt-delete";
    default:
        return "reboot";
    }
}

/* The next signal; 0 when it is time to start the agent again. */
static int next_signal(const sigset_t *signals, const struct household *house)
{
    if (house->agent >= 0)
        return sigwaitinfo(signals, NULL);
    uint64_t now = now_ms();
    struct timespec left = timespec_of(house->agent_due_ms > now ? house->agent_due_ms - now : 0);
    int number = sigtimedwait(signals, NULL, &left);
    return number < 0 && errno == EAGAIN ? 0 : number;
}

static void take_signal(int number, const sigset_t *signals, struct household *house)
{
    if (number == SIGCHLD) {
        if (reap(house))
            end_machine(signals, 0);
    } else if (number == SIGTERM || number == SIGINT || number == SIGUSR1 || number == SIGUSR2) {
        LOG(meaning(number), " was asked for: the machine ends");
        end_machine(signals, house->entrypoint);
    } else if (number > 0 && house->entrypoint > 0) {
        kill(-house->entrypoint, number);
    }
}

_Noreturn void supervise(const struct config *config, start_agent_fn *start_agent, void *context)
{
    struct household house = {.config = config, .start_agent = start_agent, .context = context};
    sigset_t signals = block_signals();
    reboot(RB_DISABLE_CAD); /* control-alt-delete is to come as SIGINT */
    house.entrypoint = entrypoint_start(config);
    if (house.entrypoint < 0)
        end_machine(&signals, 0);
    run_agent(&house); /* after the entrypoint: that the agent calls means that the machine does what it was told */
    for (;;) {
        int number = next_signal(&signals, &house);
        if (number == 0)
            run_agent(&house);
        else
            take_signal(number, &signals, &house);
    }
}
