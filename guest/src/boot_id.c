/* The kernel draws its boot id once; a file that is mounted over it can say another. It lies on a tmpfs and has no name,
 * so that nobody removes it by mistake. Mounted as the machine boots: under emulation a first mount takes milliseconds. */
#include "boot_id.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "log.h"
#include "text.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define OURS "/run/.firkin-boot-id"

enum { UUID_LINE = 37 };

static int mount_over(int fd)
{
    struct text source = {0};
    text_add(&source, "/proc/self/fd/");
    text_number(&source, (unsigned long)fd);
    return mount(source.data, BOOT_ID, NULL, MS_BIND, NULL);
}

/* A file over the kernel's that says what `line` does. */
static int cover(const char *line, size_t len)
{
    int fd = open(OURS, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0444);
    int result = fd >= 0 && write(fd, line, len) == (ssize_t)len ? mount_over(fd) : -1;
    int error = errno;
    if (fd >= 0) {
        unlink(OURS);
        close(fd);
    }
    errno = error;
    return result < 0 ? log_errno("boot id", NULL) : 0;
}

int boot_id_cover(void)
{
    char line[UUID_LINE];
    int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, line, sizeof line);
    if (fd >= 0)
        close(fd);
    return got < 0 ? log_errno("boot id", NULL) : cover(line, (size_t)got);
}

/* The file that covers the kernel's; -1: none does. */
static int open_cover(void)
{
    struct statfs where;
    int fd = open(BOOT_ID, O_WRONLY | O_CLOEXEC); /* the kernel's own does not open for writing */
    if (fd >= 0 && fstatfs(fd, &where) == 0 && where.f_type != PROC_SUPER_MAGIC)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

int boot_id_set(const char *uuid)
{
    struct text line = {0};
    text_add(&line, uuid);
    text_add(&line, "\n");
    int fd = open_cover();
    if (fd < 0)
        return cover(line.data, line.len);
    int result = pwrite(fd, line.data, line.len, 0) == (ssize_t)line.len ? 0 : log_errno("boot id", NULL);
    close(fd);
    return result;
}
