/* Writes the configuration's files. The content follows mode and owner, so that a secret is never readable on the way. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

/* Make the folders above `file`: for the owner alone if the file is for the owner alone. */
static int make_parents(const struct file *file)
{
    char path[PATH_MAX];
    mode_t mode = file->mode & 077 ? 0755 : 0700;
    size_t len = strnlen(file->path, sizeof path);
    if (len == sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(path, file->path, len + 1);
    for (char *slash = path + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        if (mkdir(path, mode) == 0 && chown(path, file->uid, file->gid) < 0)
            return -1;
    }
    return 0;
}

/* Open the file empty. A symbolic link is replaced: images point /etc/resolv.conf to where nobody will write. */
static int open_empty(const struct file *file)
{
    static const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC;
    int fd = open(file->path, flags, 0600);
    if (fd < 0 && errno == ELOOP && unlink(file->path) == 0)
        fd = open(file->path, flags, 0600);
    return fd;
}

static int write_content(int fd, const struct file *file)
{
    if (fchown(fd, file->uid, file->gid) < 0 || fchmod(fd, file->mode) < 0)
        return -1;
    for (size_t done = 0; done < file->len;) {
        ssize_t wrote = write(fd, file->data + done, file->len - done);
        if (wrote < 0)
            return -1;
        done += (size_t)wrote;
    }
    return 0;
}

static int write_file(const struct file *file)
{
    int fd = open_empty(file);
    if (fd < 0 && errno == ENOENT && make_parents(file) == 0)
        fd = open_empty(file);
    if (fd < 0)
        return -1;
    int result = write_content(fd, file);
    if (close(fd) < 0)
        return -1;
    return result;
}

int files_write(const struct config *config)
{
    int result = 0;
    for (size_t i = 0; i < config->file_count; i++)
        if (write_file(&config->files[i]) < 0)
            result = log_errno("file", config->files[i].path);
    return result;
}
