/* Process 1 for as long as the machine lives: the entrypoint on the console, orphans, signals, and an orderly end. */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "launch.h"
#include "log.h"
#include "mount.h"
#include "text.h"

enum { TERM_GRACE_MS = 3000, KILL_GRACE_MS = 1000 };

_Noreturn void reset_machine(void)
{
    tcdrain(2);
    reboot(RB_AUTOBOOT);
    _exit(1); /* the kernel panics, which ends the machine too */
}

static void report_failure(const struct config *config, const struct launch_failure *failure)
{
    const char *subject = config->argv[0];
    if (failure->stage == LAUNCH_USER)
        subject = config->user;
    if (failure->stage == LAUNCH_WORKDIR)
        subject = config->workdir;
    errno = failure->error;
    log_errno("entrypoint", subject);
}

static _Noreturn void run_entrypoint(const struct config *config)
{
    const struct launch launch = {
        .argv = config->argv, .image_env = config->env, .workdir = config->workdir, .user = config->user, .tty = true,
    };
    setsid();
    int console = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (console < 0)
        console = open("/dev/null", O_RDWR | O_CLOEXEC); /* a machine without a serial port */
    launch_adopt(console, console, console);
    ioctl(0, TIOCSCTTY, 1);
    struct launch_failure failure = launch_program(&launch);
    report_failure(config, &failure);
    _exit(127);
}

static pid_t start_entrypoint(const struct config *config)
{
    if (!config->argv[0])
        return -1;
    pid_t pid = fork();
    if (pid == 0)
        run_entrypoint(config);
    if (pid < 0)
        log_errno("entrypoint", config->argv[0]);
    return pid;
}

static void report_exit(const char *name, int status)
{
    struct text how = {0};
    text_add(&how, WIFSIGNALED(status) ? " was killed by signal " : " exited with ");
    text_number(&how, (unsigned long)(WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)));
    LOG("entrypoint ", name, how.data, ": the machine ends");
}

/* Reap everything that has ended. True when the entrypoint was among it. */
static bool reap(const struct config *config, pid_t entrypoint)
{
    bool ended = false;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == entrypoint) {
            report_exit(config->argv[0], status);
            ended = true;
        }
    return ended;
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
        uint64_t left = deadline - now;
        sigtimedwait(signals, NULL, &(struct timespec){(time_t)(left / 1000), (long)(left % 1000) * 1000000});
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

_Noreturn void supervise(const struct config *config)
{
    sigset_t signals = block_signals();
    reboot(RB_DISABLE_CAD); /* control-alt-delete is to come as SIGINT */
    pid_t entrypoint = start_entrypoint(config);
    for (;;) {
        int number = sigwaitinfo(&signals, NULL);
        if (number == SIGCHLD) {
            if (reap(config, entrypoint))
                end_machine(&signals, -1);
        } else if (number == SIGTERM || number == SIGINT || number == SIGUSR1 || number == SIGUSR2) {
            LOG(meaning(number), " was asked for: the machine ends");
            end_machine(&signals, entrypoint);
        } else if (number > 0 && entrypoint > 0) {
            kill(-entrypoint, number);
        }
    }
}
