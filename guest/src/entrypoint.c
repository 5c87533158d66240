/* Starts the entrypoint on the console, in a session of its own, and tells what kept it from starting. */
#include "entrypoint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "launch.h"
#include "log.h"

static _Noreturn void become_entrypoint(const struct config *config, int report)
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
    ssize_t wrote = write(report, &failure, sizeof failure);
    _exit(wrote < 0 ? 126 : 127);
}

static void report_failure(const struct config *config, const struct launch_failure *failure)
{
    if (failure->stage == LAUNCH_USER) {
        bool unknown = failure->error == ENOENT;
        LOG("user ", config->user, ": ", unknown ? "no such user or group in the image" : strerror(failure->error));
        return;
    }
    errno = failure->error;
    if (failure->stage == LAUNCH_WORKDIR)
        log_errno("folder", config->workdir);
    else
        log_errno("entrypoint", config->argv[0]);
}

pid_t entrypoint_start(const struct config *config)
{
    struct launch_failure failure;
    int report[2];
    if (!config->argv[0])
        return 0;
    if (pipe2(report, O_CLOEXEC) < 0)
        return log_errno("entrypoint", config->argv[0]);
    pid_t pid = fork();
    if (pid == 0)
        become_entrypoint(config, report[1]);
    int error = errno;
    close(report[1]);
    bool failed = read(report[0], &failure, sizeof failure) == sizeof failure; /* else its exec closed the pipe */
    close(report[0]);
    errno = error;
    if (pid < 0)
        return log_errno("entrypoint", config->argv[0]);
    if (failed)
        report_failure(config, &failure);
    return failed ? -1 : pid;
}
