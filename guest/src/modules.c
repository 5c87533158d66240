/* Loads kernel modules in the order of /lib/firkin/modules.load; kernels with everything built in have no such file. */
#include "modules.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"

static const char LIST[] = "/lib/firkin/modules.load";

static void load_module(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        log_errno("module", path);
        return;
    }
    if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
        log_errno("module", path);
    close(fd);
}

void modules_load(void)
{
    static char list[16384];
    int fd = open(LIST, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t len = read(fd, list, sizeof list - 1);
    close(fd);
    if (len == sizeof list - 1)
        LOG(LIST, ": longer than 16 KiB, the rest is left out");
    char *rest = list;
    for (char *path; (path = strsep(&rest, "\n"));)
        if (*path)
            load_module(path);
}
