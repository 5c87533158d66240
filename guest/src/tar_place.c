/* Makes files, links, devices and FIFOs. What is in the way is unlinked first, so that nothing is written through it. */
#include "tar_place.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tar_map.h"

static bool add_part(const char *part, size_t len, size_t *at, char path[TASK_PATH])
{
    if (len == 0 || (len == 1 && *part == '.'))
        return true;
    if (*at + 1 + len >= TASK_PATH)
        return false;
    if (*at)
        path[(*at)++] = '/';
    memcpy(path + *at, part, len);
    *at += len;
    return true;
}

int tar_path(const char *member_path, const char *name, char path[TASK_PATH])
{
    size_t at = 0, len;
    bool fits = true;
    const char *part = member_path + strspn(member_path, "/");
    for (; *part && fits; part += len, part += *part == '/') {
        len = (size_t)(strchrnul(part, '/') - part);
        if (len == 2 && memcmp(part, "..", 2) == 0)
            return task_refuse(EXDEV, member_path, "a name with `..` in it could leave the folder");
        fits = name ? add_part(name, strlen(name), &at, path) : add_part(part, len, &at, path);
        name = NULL;
    }
    path[at] = 0;
    return fits ? 0 : task_refuse(ENAMETOOLONG, member_path, strerror(ENAMETOOLONG));
}

/* True when the way is free now and it is worth to try again. */
static bool clear_way(int parent, const char *name)
{
    return errno == EEXIST && unlinkat(parent, name, 0) == 0;
}

static int make_file(int parent, const char *name)
{
    static const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(parent, name, flags, 0600);
    return fd < 0 && clear_way(parent, name) ? openat(parent, name, flags, 0600) : fd;
}

/* Modes come after owners, whose change takes the set-user-id bit away. */
static bool finish_file(const struct unpack *unpack, int fd)
{
    const struct tar_member *member = &unpack->member;
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, member->mtime};
    return (!unpack->owners || fchown(fd, member->uid, member->gid) == 0) && fchmod(fd, member->mode) == 0
        && futimens(fd, times) == 0;
}

/* An errno, after a message. */
static int take_run(struct unpack *unpack, int fd, const char *path, off_t offset, uint64_t len)
{
    enum pumped how = pump_to_file(&unpack->pump, fd, offset, len);
    unpack->left -= len;
    if (how == PUMP_ENDED)
        return task_refuse(EBADMSG, path, "the archive ends in the middle of this file");
    return how == PUMP_DONE ? 0 : task_fail(how == PUMP_READ_FAILED ? "the archive" : path);
}

static int take_sparse(struct unpack *unpack, int fd, const char *path)
{
    static struct tar_run runs[TAR_MAP_MAX];
    int result = 0;
    long count = tar_read_map(&unpack->reader, &unpack->member, runs);
    if (count < 0)
        return unpack->reader.problem ? task_refuse(EBADMSG, path, unpack->reader.problem) : task_fail("the archive");
    unpack->left = (uint64_t)unpack->member.size;
    for (long i = 0; i < count && !result; i++)
        result = take_run(unpack, fd, path, runs[i].offset, (uint64_t)runs[i].len);
    if (!result && ftruncate(fd, unpack->member.real_size) < 0)
        result = task_fail(path);
    return result;
}

static int put_file(struct unpack *unpack, int parent, const char *name, const char *path)
{
    int fd = make_file(parent, name);
    if (fd < 0)
        return task_fail(path);
    int result = unpack->member.sparse ? take_sparse(unpack, fd, path) : take_run(unpack, fd, path, -1, unpack->left);
    if (!result && !finish_file(unpack, fd))
        result = task_fail(path);
    if (close(fd) < 0 && !result)
        result = task_fail(path);
    if (result)
        unlinkat(parent, name, 0); /* half a file is worth nothing */
    return result;
}

static bool is_same(int first_folder, const char *first, int second_folder, const char *second)
{
    struct stat one, two;
    return fstatat(first_folder, first, &one, AT_SYMLINK_NOFOLLOW) == 0
        && fstatat(second_folder, second, &two, AT_SYMLINK_NOFOLLOW) == 0 && one.st_dev == two.st_dev
        && one.st_ino == two.st_ino;
}

static bool link_names(int from, const char *from_name, int parent, const char *name)
{
    if (linkat(from, from_name, parent, name, 0) == 0)
        return true;
    if (errno == EEXIST && is_same(from, from_name, parent, name))
        return true;
    return clear_way(parent, name) && linkat(from, from_name, parent, name, 0) == 0;
}

/* To a file below the folder, by the name that it has there. */
static int put_hard_link(struct unpack *unpack, int parent, const char *name, const char *path)
{
    static char target[TASK_PATH];
    char folder[TASK_PATH];
    int result = tar_path(unpack->member.link, unpack->name, target);
    if (result)
        return result;
    char *slash = strrchr(target, '/');
    size_t len = slash ? (size_t)(slash - target) : 0;
    memcpy(folder, target, len);
    folder[len] = 0;
    int from = below_openat(&unpack->below, folder, O_PATH | O_DIRECTORY);
    if (from < 0)
        return below_fail(target);
    if (!link_names(from, slash ? slash + 1 : target, parent, name))
        result = task_fail(errno == ENOENT ? target : path);
    close(from);
    return result;
}

static bool make_special(const struct tar_member *member, int parent, const char *name)
{
    mode_t kind = member->type == TAR_FIFO ? S_IFIFO : member->type == TAR_CHAR_DEVICE ? S_IFCHR : S_IFBLK;
    if (member->type == TAR_SYMLINK)
        return symlinkat(member->link, parent, name) == 0;
    return mknodat(parent, name, kind | member->mode, member->type == TAR_FIFO ? 0 : member->device) == 0;
}

static int put_special(struct unpack *unpack, int parent, const char *name, const char *path)
{
    const struct tar_member *member = &unpack->member;
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, member->mtime};
    if (!make_special(member, parent, name) && !(clear_way(parent, name) && make_special(member, parent, name)))
        return task_fail(path);
    if (unpack->owners && fchownat(parent, name, member->uid, member->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return task_fail(path);
    return utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? task_fail(path) : 0;
}

int tar_place(struct unpack *unpack, const char *path)
{
    const char *name;
    int parent = below_parent(&unpack->below, path, &name);
    if (parent < 0)
        return below_fail(path);
    if (unpack->member.type == TAR_FILE)
        return put_file(unpack, parent, name, path);
    if (unpack->member.type == TAR_HARD_LINK)
        return put_hard_link(unpack, parent, name, path);
    return put_special(unpack, parent, name, path);
}
