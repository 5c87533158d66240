/* Asks process 1 to end the machine, again and again while it may be deaf: an init that has not yet set itself up. */
#include "power.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"

enum { LIMIT_MS = 30000, ASK_AGAIN_MS = 200 };

static struct timer again, limit;
static int wanted;

/* A set of signals in /proc/PID/status. */
static unsigned long long signal_set(const char *status, const char *name)
{
    const char *at = strstr(status, name);
    return at ? strtoull(at + strlen(name), NULL, 16) : 0;
}

/* Whether process 1 catches the signal, or holds it back to read it. One that sleeps in sigwait() may not look so. */
static bool init_listens(int number)
{
    char status[4096];
    int fd = open("/proc/1/status", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, status, sizeof status - 1);
    if (fd >= 0)
        close(fd);
    if (got < 0)
        return true; /* nothing to know it by */
    status[got] = 0;
    unsigned long long heard = signal_set(status, "\nSigBlk:") | signal_set(status, "\nSigCgt:");
    return heard >> (number - 1) & 1;
}

static void force_end(void *owner)
{
    (void)owner;
    LOG("init did not end the machine in 30 s: forced");
    sync();
    reboot(RB_AUTOBOOT);
}

static void ask(void *owner)
{
    (void)owner;
    bool heard = init_listens(wanted);
    kill(1, wanted);
    if (!heard)
        timer_start(&again, ASK_AGAIN_MS);
}

void power_ask(int number)
{
    wanted = number;
    again.fire = ask;
    limit.fire = force_end;
    timer_start(&limit, LIMIT_MS);
    ask(NULL);
}
