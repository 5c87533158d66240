/* The tasks `read` and `write`: one file's content. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pump.h"
#include "task_io.h"
#include "tasks.h"

static int copy_range(int fd, const char *path, off_t offset, uint64_t len)
{
    posix_fadvise(fd, offset, 0, POSIX_FADV_SEQUENTIAL);
    if (out_file(fd, offset, len) < len && errno)
        return task_fail(path);
    out_flush();
    return 0;
}

int task_read(int argc, const char *const *argv)
{
    long long offset, len;
    (void)argc;
    if (!task_number(argv[2], 10, 0, LLONG_MAX, &offset) || !task_number(argv[3], 10, -1, LLONG_MAX, &len))
        return task_refuse(EINVAL, argv[1], "OFFSET and LENGTH must be numbers");
    int fd = open(argv[1], O_RDONLY | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return task_fail(argv[1]);
    task_widen_pipe(1);
    if (len < 0 || len > LLONG_MAX - offset)
        len = LLONG_MAX - offset;
    int result = copy_range(fd, argv[1], offset, (uint64_t)len);
    close(fd);
    return result;
}

static int open_flags(const char *how)
{
    if (strcmp(how, "new") == 0)
        return O_CREAT | O_EXCL;
    if (strcmp(how, "replace") == 0)
        return O_CREAT | O_TRUNC;
    return strcmp(how, "append") == 0 ? O_CREAT | O_APPEND : -1;
}

static int take_content(int fd, const char *path)
{
    static struct pump pump;
    pump_open(&pump, 0);
    enum pumped how = pump_to_file(&pump, fd, -1, UINT64_MAX);
    if (how == PUMP_READ_FAILED)
        return task_fail("the task's input");
    return how == PUMP_WRITE_FAILED ? task_fail(path) : 0;
}

int task_write(int argc, const char *const *argv)
{
    long long mode;
    const char *path = argv[1];
    int flags = open_flags(argv[3]);
    (void)argc;
    if (!task_number(argv[2], 8, 0, 07777, &mode) || flags < 0)
        return task_refuse(EINVAL, path, "MODE must be octal, and HOW `new`, `replace` or `append`");
    umask(0);
    int fd = open(path, flags | O_WRONLY | O_NOCTTY | O_CLOEXEC, (mode_t)mode);
    if (fd < 0)
        return task_fail(path);
    int result = take_content(fd, path);
    if (close(fd) < 0 && !result)
        result = task_fail(path);
    if (result && flags & O_EXCL)
        unlink(path); /* it was not there before: half of it is worth nothing */
    return result;
}
