/* Mounts: the image read-only, a writable layer over it, the kernel's own file systems, and the switch of the root. */
#include "mount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "folder.h"
#include "log.h"
#include "text.h"

#define IMAGE "/image"
#define LAYER "/layer"
#define ROOT "/newroot"

enum { DEVICE_WAIT_MS = 10000 };

struct mount_entry {
    const char *source, *target, *type;
    unsigned long flags;
    const char *options;
};

static const struct mount_entry SYSTEM[] = {
    {"proc", ROOT "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
    {"sysfs", ROOT "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
    {"tmpfs", ROOT "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"},
    {"devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
    {"tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"},
};

static const char *const DEVICE_LINKS[][2] = {
    {"/proc/self/fd", "/dev/fd"},
    {"/proc/self/fd/0", "/dev/stdin"},
    {"/proc/self/fd/1", "/dev/stdout"},
    {"/proc/self/fd/2", "/dev/stderr"},
};

/* The mounts below the overlay cannot be named after the switch; this still reaches a layer on disk. -1: none. */
static int layer_fd = -1;

static int mount_entry(const struct mount_entry *entry)
{
    if (mount(entry->source, entry->target, entry->type, entry->flags, entry->options) == 0)
        return 0;
    if (errno == ENOENT && mkdir(entry->target, 0755) == 0
        && mount(entry->source, entry->target, entry->type, entry->flags, entry->options) == 0)
        return 0;
    return log_errno("mount", entry->target);
}

int mount_devices(void)
{
    return mount_entry(&(struct mount_entry){"devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755"});
}

static void add_block_devices(struct text *text)
{
    struct folder folder;
    size_t start = text->len;
    if (folder_open(&folder, open("/dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC)))
        for (const char *name; (name = folder_next(&folder));)
            if (folder.type == DT_BLK) {
                text_add(text, " ");
                text_add(text, name);
            }
    folder_close(&folder);
    if (text->len == start)
        text_add(text, " none");
}

static int report_missing(const char *device)
{
    struct text have = {0};
    add_block_devices(&have);
    LOG("disk ", device, ": not there after 10 s; block devices found:", have.data);
    return -1;
}

static int report_mount(const char *device, const char *type, int error)
{
    const char *why = strerror(error);
    if (error == ENODEV)
        why = "this kernel does not know that file system";
    if (error == EINVAL)
        why = "no such file system on that disk";
    LOG("mount ", type, " ", device, ": ", why);
    return -1;
}

/* Mount a disk as soon as its device is there. */
static int mount_disk(const char *device, const char *target, const char *type, unsigned long flags)
{
    struct backoff backoff = backoff_start(DEVICE_WAIT_MS);
    do {
        if (mount(device, target, type, flags, NULL) == 0)
            return 0;
        if (errno != ENOENT && errno != ENXIO)
            return report_mount(device, type, errno);
    } while (backoff_wait(&backoff));
    return report_missing(device);
}

static int mount_layer(const struct config *config)
{
    if (!config->layer_device)
        return mount_entry(&(struct mount_entry){"tmpfs", LAYER, "tmpfs", 0, "mode=0755"});
    if (mount_disk(config->layer_device, LAYER, config->layer_type, MS_NOATIME) < 0)
        return -1;
    layer_fd = open(LAYER, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return 0;
}

static int make_layer_folder(const char *path)
{
    return mkdir(path, 0755) == 0 || errno == EEXIST ? 0 : log_errno("mkdir", path);
}

int mount_root(const struct config *config)
{
    static const struct mount_entry overlay = {
        "firkin", ROOT, "overlay", 0, "lowerdir=" IMAGE ",upperdir=" LAYER "/upper,workdir=" LAYER "/work",
    };
    if (mount_disk(config->root_device, IMAGE, config->root_type, MS_RDONLY) < 0 || mount_layer(config) < 0)
        return -1;
    if (make_layer_folder(LAYER "/upper") < 0 || make_layer_folder(LAYER "/work") < 0)
        return -1;
    return mount_entry(&overlay);
}

int mount_system(void)
{
    int result = 0;
    for (size_t i = 0; i < sizeof SYSTEM / sizeof *SYSTEM; i++)
        result |= mount_entry(&SYSTEM[i]);
    for (size_t i = 0; i < sizeof DEVICE_LINKS / sizeof *DEVICE_LINKS; i++)
        if (symlink(DEVICE_LINKS[i][0], DEVICE_LINKS[i][1]) < 0 && errno != EEXIST)
            result = log_errno("symlink", DEVICE_LINKS[i][1]);
    return result;
}

int mount_cgroups(void)
{
    static const struct mount_entry cgroups = {
        "cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL,
    };
    return mount_entry(&cgroups);
}

/* Remove what lies in the folder `fd`, on that file system only; closes `fd`. */
static void empty_folder(int fd, dev_t device)
{
    struct folder folder;
    if (!folder_open(&folder, fd))
        return;
    for (const char *name; (name = folder_next(&folder));) {
        struct stat stat;
        if (fstatat(fd, name, &stat, AT_SYMLINK_NOFOLLOW) < 0 || stat.st_dev != device)
            continue;
        if (S_ISDIR(stat.st_mode))
            empty_folder(openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), device);
        unlinkat(fd, name, S_ISDIR(stat.st_mode) ? AT_REMOVEDIR : 0);
    }
    folder_close(&folder);
}

int switch_root(void)
{
    struct stat stat;
    int initramfs = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    mkdir(ROOT "/dev", 0755); /* there already in most images; the move says so if it is needed and failed */
    if (mount("/dev", ROOT "/dev", NULL, MS_MOVE, NULL) < 0)
        return log_errno("mount", "/dev in the image");
    if (chdir(ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        return log_errno("switch root", NULL);
    if (initramfs >= 0 && fstat(initramfs, &stat) == 0)
        empty_folder(initramfs, stat.st_dev);
    return 0;
}

/* /proc/self/mounts writes blanks in names as \ooo. */
static void unescape(char *path)
{
    char *out = path;
    while (*path) {
        if (path[0] == '\\' && path[1] && path[2] && path[3]) {
            *out++ = (char)((path[1] & 7) << 6 | (path[2] & 7) << 3 | (path[3] & 7));
            path += 4;
        } else {
            *out++ = *path++;
        }
    }
    *out = 0;
}

static size_t read_mounts(char *data, size_t size)
{
    size_t have = 0;
    int fd = open("/proc/self/mounts", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    for (ssize_t got; have < size && (got = read(fd, data + have, size - have)) > 0;)
        have += (size_t)got;
    close(fd);
    return have;
}

/* Mounted later comes off earlier; what is busy is made read-only. */
static void unmount_below_root(void)
{
    static char mounts[65536];
    static char *targets[512];
    size_t count = 0;
    mounts[read_mounts(mounts, sizeof mounts - 1)] = 0;
    char *rest = mounts;
    for (char *line; (line = strsep(&rest, "\n")) && count < sizeof targets / sizeof *targets;) {
        strsep(&line, " ");
        char *target = line ? strsep(&line, " ") : NULL;
        if (target)
            targets[count++] = target;
    }
    while (count--) {
        unescape(targets[count]);
        if (strcmp(targets[count], "/") == 0 || strcmp(targets[count], "/proc") == 0)
            continue;
        if (umount2(targets[count], 0) < 0)
            mount(NULL, targets[count], NULL, MS_REMOUNT | MS_RDONLY, NULL);
    }
}

void unmount_all(void)
{
    struct text layer = {0};
    chdir("/");
    sync();
    unmount_below_root();
    mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
    if (layer_fd < 0)
        return;
    text_add(&layer, "/proc/self/fd/");
    text_number(&layer, (unsigned long)layer_fd);
    if (mount(NULL, layer.data, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
        log_errno("layer: could not be made read-only", NULL);
}
