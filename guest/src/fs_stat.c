/* The tasks `stat` and `list`: what is known of a file, as a record. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "folder.h"
#include "task_io.h"
#include "tasks.h"

static void add_record(const struct stat *info, const char *name, const char *target)
{
    bool device = S_ISCHR(info->st_mode) || S_ISBLK(info->st_mode);
    out_u32(info->st_mode);
    out_u32(info->st_uid);
    out_u32(info->st_gid);
    out_u32((uint32_t)info->st_nlink);
    out_u64(device ? info->st_rdev : 0);
    out_u64(info->st_ino);
    out_u64((uint64_t)info->st_size);
    out_u64((uint64_t)info->st_blocks * 512);
    out_u64((uint64_t)info->st_mtim.tv_sec);
    out_u64((uint64_t)info->st_mtim.tv_nsec);
    out_blob(name, strlen(name));
    out_blob(target, strlen(target));
}

static bool describe(int folder, const char *path, const char *name, int flags)
{
    struct stat info;
    char target[TASK_PATH] = "";
    if (fstatat(folder, path, &info, flags) < 0)
        return false;
    if (S_ISLNK(info.st_mode)) {
        ssize_t len = readlinkat(folder, path, target, sizeof target - 1);
        if (len < 0)
            return false;
        target[len] = 0;
    }
    add_record(&info, name, target);
    return true;
}

int task_stat(int argc, const char *const *argv)
{
    char name[TASK_PATH];
    bool follow = argc == 3;
    if (follow && strcmp(argv[2], "follow") != 0)
        return task_refuse(EINVAL, argv[2], "only `follow` may come after PATH");
    task_last_part(argv[1], name);
    if (!describe(AT_FDCWD, argv[1], name, follow ? 0 : AT_SYMLINK_NOFOLLOW))
        return task_fail(argv[1]);
    out_flush();
    return 0;
}

int task_list(int argc, const char *const *argv)
{
    struct folder folder;
    (void)argc;
    if (!folder_open(&folder, open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC)))
        return task_fail(argv[1]);
    errno = 0;
    for (const char *name; (name = folder_next(&folder)); errno = 0)
        if (!describe(folder.fd, name, name, AT_SYMLINK_NOFOLLOW) && errno != ENOENT)
            return task_fail(name); /* ENOENT: it has gone since */
    if (errno)
        return task_fail(argv[1]);
    folder_close(&folder);
    out_flush();
    return 0;
}
