/* The tasks `rename`, `symlink`, `chmod`, `chown` and `mkdir`: one path, one system call. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "task_io.h"
#include "tasks.h"

static int end(int result, const char *path)
{
    return result < 0 ? task_fail(path) : 0;
}

int task_rename(int argc, const char *const *argv)
{
    (void)argc;
    return end(rename(argv[1], argv[2]), argv[1]);
}

int task_symlink(int argc, const char *const *argv)
{
    (void)argc;
    return end(symlink(argv[1], argv[2]), argv[2]);
}

int task_chmod(int argc, const char *const *argv)
{
    long long mode;
    (void)argc;
    if (!task_number(argv[2], 8, 0, 07777, &mode))
        return task_refuse(EINVAL, argv[1], "MODE must be octal");
    return end(chmod(argv[1], (mode_t)mode), argv[1]);
}

int task_chown(int argc, const char *const *argv)
{
    long long uid, gid;
    (void)argc;
    if (!task_number(argv[2], 10, -1, UINT_MAX - 1LL, &uid) || !task_number(argv[3], 10, -1, UINT_MAX - 1LL, &gid))
        return task_refuse(EINVAL, argv[1], "UID and GID must be numbers");
    return end(chown(argv[1], (uid_t)uid, (gid_t)gid), argv[1]);
}

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static int make_parents(const char *path)
{
    char part[TASK_PATH];
    size_t len = strlen(path);
    if (len >= sizeof part)
        return task_refuse(ENAMETOOLONG, path, strerror(ENAMETOOLONG));
    memcpy(part, path, len + 1);
    while (len > 1 && part[len - 1] == '/')
        part[--len] = 0;
    for (char *slash = part + 1; len > 1 && (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return task_fail(part);
    }
    return 0;
}

int task_mkdir(int argc, const char *const *argv)
{
    long long mode;
    bool parents = argc == 4;
    if (!task_number(argv[2], 8, 0, 07777, &mode) || (parents && strcmp(argv[3], "parents") != 0))
        return task_refuse(EINVAL, argv[1], "MODE must be octal, and only `parents` may come after it");
    umask(0);
    int result = parents ? make_parents(argv[1]) : 0;
    if (result || mkdir(argv[1], (mode_t)mode) == 0)
        return result;
    return parents && errno == EEXIST && is_folder(argv[1]) ? 0 : task_fail(argv[1]);
}
