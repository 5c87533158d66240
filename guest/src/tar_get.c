/* The task `get`: a tree as an archive. What cannot be read is noted and the rest goes on, as tar does. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>
#include <linux/magic.h>

#include "folder.h"
#include "tar_file.h"
#include "tar_links.h"
#include "tar_write.h"
#include "tasks.h"

/* The walk: where it is, by the name in the archive, and the errno of the first thing that could not be read. */
static struct {
    size_t depth, len;
    int error;
    bool unsized; /* sizes in the kernel's file systems mean nothing */
    struct tar_member member;
} walk;

static void walk_failed(void)
{
    int error = task_fail(walk.member.path);
    walk.error = walk.error ? walk.error : error;
}

/* Fill in the header. False when it was written as another link to what is in the archive already. */
static bool begin(const struct stat *info, enum tar_type type)
{
    struct tar_member *member = &walk.member;
    member->type = (char)type;
    member->sparse = false;
    member->mode = info->st_mode & 07777;
    member->uid = info->st_uid;
    member->gid = info->st_gid;
    member->device = type == TAR_CHAR_DEVICE || type == TAR_BLOCK_DEVICE ? info->st_rdev : 0;
    member->mtime = info->st_mtim;
    member->size = 0;
    member->link[0] = 0;
    const char *first = tar_link_of(info, member->path);
    if (first) {
        member->type = TAR_HARD_LINK;
        strcpy(member->link, first);
        tar_write_header(member);
    }
    return !first;
}

/* A device, FIFO or link: all of it is in the header. */
static void add_special(int folder, const char *name, const struct stat *info)
{
    enum tar_type type = S_ISCHR(info->st_mode) ? TAR_CHAR_DEVICE : S_ISBLK(info->st_mode) ? TAR_BLOCK_DEVICE
        : S_ISLNK(info->st_mode) ? TAR_SYMLINK : TAR_FIFO;
    if (S_ISSOCK(info->st_mode)) {
        task_note(walk.member.path, "a socket is left out");
        return;
    }
    if (!begin(info, type))
        return;
    if (type == TAR_SYMLINK) {
        ssize_t len = readlinkat(folder, name, walk.member.link, TASK_PATH - 1);
        if (len < 0) {
            walk_failed();
            return;
        }
        walk.member.link[len] = 0;
    }
    tar_write_header(&walk.member);
}

/* The kernel's own file systems have no end: only what was asked for by name is copied. */
static bool is_kernels(const struct statfs *info)
{
    switch (info->f_type) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
    case SECURITYFS_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case BPF_FS_MAGIC:
    case DEVPTS_SUPER_MAGIC:
        return true;
    default:
        return false;
    }
}

static void add(int folder, const char *name, unsigned char kind, dev_t device);

static bool enter(const char *name)
{
    size_t len = strlen(name);
    if (walk.depth == TASK_MAX_DEPTH || walk.len + 1 + len >= TASK_PATH) {
        errno = ENAMETOOLONG;
        walk_failed();
        return false;
    }
    walk.member.path[walk.len] = '/';
    memcpy(walk.member.path + walk.len + 1, name, len + 1);
    walk.len += 1 + len;
    walk.depth++;
    return true;
}

static void leave(size_t len)
{
    walk.len = len;
    walk.member.path[len] = 0;
    walk.depth--;
}

static void add_entries(int fd, dev_t device)
{
    struct folder folder;
    size_t len = walk.len;
    folder_open(&folder, fd);
    errno = 0;
    for (const char *name; (name = folder_next(&folder)); errno = 0)
        if (enter(name)) {
            add(fd, name, folder.type, device);
            leave(len);
        }
    if (errno)
        walk_failed();
}

static void add_folder(int fd, const struct stat *info, dev_t device)
{
    struct statfs system;
    bool mounted = device && info->st_dev != device && fstatfs(fd, &system) == 0 && is_kernels(&system);
    if (!begin(info, TAR_FOLDER))
        return;
    tar_write_header(&walk.member);
    if (mounted)
        task_note(walk.member.path, "a file system of the kernel's is left out");
    else
        add_entries(fd, info->st_dev);
}

static void add_file(int fd, struct stat *info)
{
    if (walk.unsized)
        info->st_size = 0;
    if (begin(info, TAR_FILE) && !tar_file(fd, info, &walk.member))
        walk.error = walk.error ? walk.error : EIO;
}

/* Something that was there a moment ago and is not any more is nobody's fault. */
static void failed_to_open(void)
{
    if (errno != ENOENT || walk.depth == 0)
        walk_failed();
}

/* Not blocking: between the look and the opening a FIFO may have taken the place. */
static void add_opened(int folder, const char *name, dev_t device)
{
    struct stat info;
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) < 0)
        failed_to_open();
    else if (S_ISDIR(info.st_mode))
        add_folder(fd, &info, device);
    else if (S_ISREG(info.st_mode))
        add_file(fd, &info);
    if (fd >= 0)
        close(fd);
}

/* What the folder says of its entry spares a look at files and folders. */
static void add(int folder, const char *name, unsigned char kind, dev_t device)
{
    struct stat info;
    bool opens = kind == DT_REG || kind == DT_DIR;
    if (!opens && fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) < 0)
        failed_to_open();
    else if (opens || S_ISREG(info.st_mode) || S_ISDIR(info.st_mode))
        add_opened(folder, name, device);
    else
        add_special(folder, name, &info);
}

/* With a NAME of its own, a folder behind a link is meant, not the link. */
static void add_root(const char *path, bool named)
{
    struct statfs info;
    int fd = named ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    walk.unsized = statfs(path, &info) == 0 && is_kernels(&info);
    if (fd >= 0)
        add(fd, ".", DT_DIR, 0);
    else
        add(AT_FDCWD, path, DT_UNKNOWN, 0);
    if (fd >= 0)
        close(fd);
}

int task_get(int argc, const char *const *argv)
{
    char *root = walk.member.path;
    task_last_part(argc == 3 ? argv[2] : argv[1], root);
    if (strcmp(root, "/") == 0 || strcmp(root, "..") == 0)
        strcpy(root, ".");
    walk.len = strlen(root);
    task_widen_pipe(1);
    task_allow_depth();
    add_root(argv[1], argc == 3);
    tar_write_end();
    out_flush();
    return walk.error;
}
