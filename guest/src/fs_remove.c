/* The task `remove`: a file, an empty folder, or a tree. Links are removed, never followed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "folder.h"
#include "task_io.h"
#include "tasks.h"

static struct {
    size_t depth, len;
    char path[TASK_PATH]; /* for messages */
} walk;

static int remove_entry(int folder, const char *name, bool is_folder);

static bool enter(const char *name)
{
    size_t len = strlen(name);
    if (walk.depth == TASK_MAX_DEPTH || walk.len + 1 + len >= TASK_PATH) {
        errno = ENAMETOOLONG;
        return false;
    }
    walk.path[walk.len] = '/';
    memcpy(walk.path + walk.len + 1, name, len + 1);
    walk.len += 1 + len;
    walk.depth++;
    return true;
}

static void leave(size_t len)
{
    walk.len = len;
    walk.path[len] = 0;
    walk.depth--;
}

/* A folder that loses entries while it is read may hide some: whoever empties it reads again until there are none. */
static int empty_once(int fd, bool *found)
{
    struct folder folder;
    size_t len = walk.len;
    int result = 0;
    *found = false;
    folder_open(&folder, fd);
    for (const char *name; !result && (name = folder_next(&folder));) {
        if (!enter(name))
            return task_fail(walk.path);
        result = remove_entry(fd, name, folder.type == DT_DIR);
        *found = true;
        leave(len);
    }
    return result;
}

static int empty(int parent, const char *name)
{
    bool found = true;
    int result = 0;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return task_fail(walk.path);
    while (found && !result) {
        result = empty_once(fd, &found);
        if (lseek(fd, 0, SEEK_SET) < 0 && !result)
            result = task_fail(walk.path);
    }
    close(fd);
    return result;
}

/* What has gone by itself is as good as removed. */
static int remove_entry(int folder, const char *name, bool is_folder)
{
    if (!is_folder && unlinkat(folder, name, 0) == 0)
        return 0;
    if (!is_folder && errno != EISDIR)
        return errno == ENOENT ? 0 : task_fail(walk.path);
    int result = empty(folder, name);
    if (!result && unlinkat(folder, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        result = task_fail(walk.path);
    return result;
}

static bool is_root(const struct stat *info)
{
    struct stat root;
    return stat("/", &root) == 0 && info->st_dev == root.st_dev && info->st_ino == root.st_ino;
}

int task_remove(int argc, const char *const *argv)
{
    struct stat info;
    const char *path = argv[1];
    bool tree = argc == 3;
    if (tree && strcmp(argv[2], "tree") != 0)
        return task_refuse(EINVAL, argv[2], "only `tree` may come after PATH");
    if (lstat(path, &info) < 0)
        return task_fail(path);
    if (is_root(&info))
        return task_refuse(EBUSY, path, "the root folder cannot be removed");
    if (!tree)
        return unlinkat(AT_FDCWD, path, S_ISDIR(info.st_mode) ? AT_REMOVEDIR : 0) < 0 ? task_fail(path) : 0;
    walk.len = strnlen(path, TASK_PATH - 1);
    memcpy(walk.path, path, walk.len);
    task_allow_depth();
    return remove_entry(AT_FDCWD, path, S_ISDIR(info.st_mode));
}
