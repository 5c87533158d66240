/* What makes a fork another machine: the list below. Starts no program, and waits for nothing. */
#include "renew.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "log.h"
#include "renew_net.h"
#include "seed.h"
#include "text.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define OURS "/run/.firkin-boot-id"

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

/* The kernel draws its boot id once. A file over it says another; it has no name, so that nobody removes it by mistake. */
static int cover_boot_id(void)
{
    struct text source = {0};
    int fd = open(OURS, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0444);
    if (fd < 0)
        return -1;
    text_add(&source, "/proc/self/fd/");
    text_number(&source, (unsigned long)fd);
    if (mount(source.data, BOOT_ID, NULL, MS_BIND, NULL) < 0) {
        int error = errno;
        close(fd);
        fd = -1;
        errno = error;
    }
    unlink(OURS);
    return fd;
}

/* In a fork of a fork the file of before is there: its text is replaced at once, for whoever may have it open. */
static int open_boot_id(void)
{
    struct statfs where;
    int fd = open(BOOT_ID, O_RDWR | O_CLOEXEC);
    if (fd >= 0 && fstatfs(fd, &where) == 0 && where.f_type != PROC_SUPER_MAGIC)
        return fd;
    if (fd >= 0)
        close(fd);
    return cover_boot_id();
}

static int renew_boot_id(const struct config *config)
{
    struct text line = {0};
    if (!config->boot_id)
        return 0;
    text_add(&line, config->boot_id);
    text_add(&line, "\n");
    int fd = open_boot_id();
    if (fd < 0)
        return log_errno("boot id", NULL);
    int result = pwrite(fd, line.data, line.len, 0) == (ssize_t)line.len ? 0 : log_errno("boot id", NULL);
    close(fd);
    return result;
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
