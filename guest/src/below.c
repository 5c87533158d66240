/* Opens what lies below a folder by openat2, which refuses to be led out of it. */
#include "below.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Below the guest's own root no link leads out, and absolute ones mean what they say. */
static bool is_root(int fd)
{
    struct stat folder, root;
    return fstat(fd, &folder) == 0 && stat("/", &root) == 0 && folder.st_dev == root.st_dev
        && folder.st_ino == root.st_ino;
}

bool below_open(struct below *below, const char *path)
{
    below->root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    below->parent = -1;
    if (below->root < 0)
        return false;
    below->resolve = RESOLVE_NO_MAGICLINKS | (is_root(below->root) ? RESOLVE_IN_ROOT : RESOLVE_BENEATH);
    return true;
}

int below_openat(const struct below *below, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)flags | O_CLOEXEC, .resolve = below->resolve};
    int fd;
    do
        fd = (int)syscall(SYS_openat2, below->root, *path ? path : ".", &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN)); /* EAGAIN: a rename somewhere made the answer uncertain */
    return fd;
}

static int open_folder(const struct below *below, const char *path)
{
    return below_openat(below, path, O_PATH | O_DIRECTORY);
}

/* Each folder on the way, from the top, where it is missing. */
static int make_folders(struct below *below, char *path)
{
    int parent = open_folder(below, "");
    for (char *start = path, *slash; parent >= 0 && *start; start = slash) {
        slash = strchrnul(start, '/');
        char end = *slash;
        *slash = 0;
        bool made = mkdirat(parent, start, 0755) == 0 || errno == EEXIST;
        int next = made ? open_folder(below, path) : -1;
        int error = errno;
        close(parent);
        errno = error;
        parent = next;
        *slash = end;
        slash += end == '/';
    }
    return parent;
}

int below_parent(struct below *below, const char *path, const char **name)
{
    char folder[TASK_PATH];
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;
    *name = slash ? slash + 1 : path;
    if (below->parent >= 0 && strlen(below->parent_path) == len && memcmp(below->parent_path, path, len) == 0)
        return below->parent;
    memcpy(folder, path, len);
    folder[len] = 0;
    below_close(below);
    below->parent = open_folder(below, folder);
    if (below->parent < 0 && errno == ENOENT)
        below->parent = make_folders(below, folder);
    strcpy(below->parent_path, folder);
    return below->parent;
}

void below_close(struct below *below)
{
    if (below->parent >= 0)
        close(below->parent);
    below->parent = -1;
}

int below_fail(const char *path)
{
    if (errno == EXDEV)
        return task_refuse(EXDEV, path, "a link on the way leads out of the folder");
    return task_fail(path);
}
