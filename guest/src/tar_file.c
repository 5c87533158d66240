/* Writes a file into the archive: small ones at one go, large ones from the kernel's cache, sparse ones without holes. */
#include "tar_file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "tar_map.h"
#include "tar_write.h"

enum { SMALL = 64 * 1024 };

/* Content of a file whose size in the archive is decided already. */
static bool add_content(int fd, const char *path, off_t offset, uint64_t size)
{
    uint64_t got = out_file(fd, offset, size);
    bool good = got == size || !errno;
    if (!good)
        task_fail(path);
    else if (got < size)
        task_note(path, "shrank while it was read; zeros stand for the rest");
    out_zeros(size - got);
    return good;
}

static bool is_at_end(int fd, const char *path)
{
    char byte;
    bool more = read(fd, &byte, 1) > 0;
    if (more)
        task_note(path, "does not say how long it is; only its start was read");
    return !more;
}

/* The content is read right behind its header, which is written again if the size was wrong: a file may change, and the
 * kernel's own files say 0 however long they are. */
static bool add_small(int fd, size_t size, struct tar_member *member)
{
    unsigned char *start = out_reserve(TAR_HEADER_MAX + SMALL + TAR_BLOCK);
    member->size = (int64_t)size;
    tar_write_header(member);
    unsigned char *content = out_reserve(SMALL);
    ssize_t got = read_full(fd, content, size ? size : SMALL);
    if (got != (ssize_t)size)
        out_take_back((size_t)(content - start));
    if (got < 0) {
        task_fail(member->path);
        return false;
    }
    if (got != (ssize_t)size) {
        member->size = got;
        tar_write_header(member);
    }
    out_commit((size_t)got);
    out_zeros(tar_padding((uint64_t)got));
    return size || got < SMALL || is_at_end(fd, member->path);
}

static bool add_large(int fd, int64_t size, struct tar_member *member)
{
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    member->size = size;
    tar_write_header(member);
    bool good = add_content(fd, member->path, 0, (uint64_t)size);
    out_zeros(tar_padding((uint64_t)size));
    return good;
}

static bool add_sparse(int fd, int64_t size, const struct tar_run *runs, long count, struct tar_member *member)
{
    bool good = true;
    member->sparse = true;
    member->real_size = size;
    member->size = tar_map_size(runs, count);
    for (long i = 0; i < count; i++)
        member->size += runs[i].len;
    tar_write_header(member);
    tar_write_map(runs, count);
    for (long i = 0; i < count; i++)
        good = add_content(fd, member->path, runs[i].offset, (uint64_t)runs[i].len) && good;
    out_zeros(tar_padding((uint64_t)member->size));
    return good;
}

bool tar_file(int fd, const struct stat *info, struct tar_member *member)
{
    static struct tar_run runs[TAR_MAP_MAX];
    int64_t size = info->st_size;
    long count = info->st_blocks * 512 < size ? tar_find_map(fd, size, runs) : -1;
    if (count > 1 || (count == 1 && runs[0].len < size))
        return add_sparse(fd, size, runs, count, member);
    if (count >= 0)
        lseek(fd, 0, SEEK_SET); /* the search has moved it */
    return size <= SMALL ? add_small(fd, (size_t)size, member) : add_large(fd, size, member);
}
