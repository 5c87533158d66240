/* What makes a fork another machine: the list below. Starts no program, and waits for nothing. */
#include "renew.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "boot_id.h"
#include "files.h"
#include "log.h"
#include "renew_net.h"
#include "seed.h"
#include "text.h"

static int renew_clock(const struct config *config)
{
    if (config->clock.tv_sec && clock_settime(CLOCK_REALTIME, &config->clock) < 0)
        return log_errno("clock", NULL);
    return 0;
}

static int renew_hostname(const struct config *config)
{
    if (config->hostname && sethostname(config->hostname, strlen(config->hostname)) < 0)
        return log_errno("hostname", config->hostname);
    return 0;
}

static int renew_boot_id(const struct config *config)
{
    return config->boot_id ? boot_id_set(config->boot_id) : 0;
}

/* The beginning of a file as a string, empty if there is none. */
static void read_small(const char *path, char *data, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t got = fd < 0 ? 0 : read(fd, data, size - 1);
    if (fd >= 0)
        close(fd);
    data[got > 0 ? got : 0] = 0;
}

/* The number in a pid file; 0: none. */
static pid_t read_pid(const char *path)
{
    char digits[16];
    unsigned long pid;
    read_small(path, digits, sizeof digits);
    digits[strcspn(digits, "\n")] = 0;
    return parse_number(digits, 10, 1 << 22, &pid) ? (pid_t)pid : 0;
}

/* Whether the process is called as its pid file is, /run/NAME.pid: the file may be older than the process. */
static bool is_named(pid_t pid, const char *pid_file)
{
    struct text path = {0};
    char name[32];
    const char *base = strrchr(pid_file, '/') + 1;
    text_add(&path, "/proc/");
    text_number(&path, (unsigned long)pid);
    text_add(&path, "/comm");
    read_small(path.data, name, sizeof name);
    size_t len = strcspn(name, "\n");
    return len && strncmp(base, name, len) == 0 && strcmp(base + len, ".pid") == 0;
}

/* Servers read their keys again. */
static int renew_servers(const struct config *config)
{
    for (size_t i = 0; i < config->hangup_count; i++) {
        pid_t pid = read_pid(config->hangups[i]);
        if (pid > 1 && is_named(pid, config->hangups[i]))
            kill(pid, SIGHUP);
    }
    return 0;
}

typedef int renew_fn(const struct config *config);

int renew(const struct config *config)
{
    /* Randomness first, since others draw from it; servers last, when their files are there. */
    static renew_fn *const parts[] = {
        seed_renew, renew_clock, renew_net, files_write, renew_hostname, renew_boot_id, renew_servers,
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i](config) < 0)
            return -1;
    return 0;
}
