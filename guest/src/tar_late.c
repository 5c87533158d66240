/* Remembers what folders are to have, in a bounded arena, and gives it to them from the last to the first. */
#include "tar_late.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Folders that wait. Tests make it small. */
#ifndef TAR_LATE_MAX
#define TAR_LATE_MAX 32768
#endif

enum { ARENA = 2 * 1024 * 1024 };

struct late {
    mode_t mode;
    uid_t uid;
    gid_t gid;
    uint32_t path; /* where in the arena */
    struct timespec mtime;
};

static struct {
    size_t count, len;
    struct late folders[TAR_LATE_MAX];
    char arena[ARENA];
} lates;

static int apply(const struct below *below, const struct late *late, bool owners)
{
    const char *path = lates.arena + late->path;
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, late->mtime};
    int fd = below_openat(below, path, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    bool good = fd >= 0 && (!owners || fchown(fd, late->uid, late->gid) == 0) && fchmod(fd, late->mode) == 0
        && futimens(fd, times) == 0;
    int result = good ? 0 : task_fail(path);
    if (fd >= 0)
        close(fd);
    return result;
}

int tar_late_apply(const struct below *below, bool owners)
{
    int result = 0;
    while (lates.count && !result)
        result = apply(below, &lates.folders[--lates.count], owners);
    return result;
}

static bool is_in(const char *path, const char *folder)
{
    size_t len = strlen(folder);
    return strncmp(path, folder, len) == 0 && (!path[len] || path[len] == '/');
}

/* Make room: only the folders that `path` is in go on waiting. */
static int flush(const struct below *below, const char *path, bool owners)
{
    size_t kept = 0, len = 0;
    int result = 0;
    for (size_t i = 0; i < lates.count && !result; i++) {
        struct late *late = &lates.folders[i];
        const char *folder = lates.arena + late->path;
        size_t size = strlen(folder) + 1;
        if (!is_in(path, folder)) {
            result = apply(below, late, owners);
            continue;
        }
        memmove(lates.arena + len, folder, size);
        late->path = (uint32_t)len;
        lates.folders[kept++] = *late;
        len += size;
    }
    lates.count = kept;
    lates.len = len;
    return result;
}

/* Archives that name one folder again and again, or nest them deeper than memory, get no further. */
static bool is_full(size_t size)
{
    return lates.count == TAR_LATE_MAX || size > ARENA - lates.len;
}

int tar_late_add(const struct below *below, const struct tar_member *member, const char *path, bool owners)
{
    size_t size = strlen(path) + 1;
    int result = is_full(size) ? flush(below, path, owners) : 0;
    if (result)
        return result;
    if (is_full(size))
        return task_refuse(E2BIG, path, "too many folders within each other");
    memcpy(lates.arena + lates.len, path, size);
    lates.folders[lates.count++] = (struct late){
        member->mode, member->uid, member->gid, (uint32_t)lates.len, member->mtime,
    };
    lates.len += size;
    return 0;
}
