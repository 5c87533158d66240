/* stdout in large pieces; the content of files goes there from the kernel's cache, without a copy here. */
#include <errno.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "task_io.h"

static struct {
    size_t len;
    unsigned char data[TASK_BUFFER];
} out;

void out_flush(void)
{
    if (!write_full(1, out.data, out.len))
        _exit(task_fail("the task's output"));
    out.len = 0;
}

unsigned char *out_reserve(size_t len)
{
    if (len > sizeof out.data - out.len)
        out_flush();
    return out.data + out.len;
}

void out_commit(size_t len)
{
    out.len += len;
}

void out_take_back(size_t len)
{
    out.len -= len;
}

void out_add(const void *data, size_t len)
{
    for (const unsigned char *at = data; len;) {
        size_t piece = len < TASK_BUFFER ? len : TASK_BUFFER;
        memcpy(out_reserve(piece), at, piece);
        out_commit(piece);
        at += piece;
        len -= piece;
    }
}

void out_zeros(uint64_t len)
{
    while (len) {
        size_t piece = len < TASK_BUFFER ? (size_t)len : TASK_BUFFER;
        memset(out_reserve(piece), 0, piece);
        out_commit(piece);
        len -= piece;
    }
}

static void add_number(uint64_t value, size_t len)
{
    unsigned char *at = out_reserve(len);
    for (size_t i = 0; i < len; i++)
        at[i] = (unsigned char)(value >> (8 * i));
    out_commit(len);
}

void out_u32(uint32_t value)
{
    add_number(value, 4);
}

void out_u64(uint64_t value)
{
    add_number(value, 8);
}

void out_blob(const void *data, size_t len)
{
    out_u32((uint32_t)len);
    out_add(data, len);
}

/* Through our own memory: what is small joins what is in the buffer, and some files know no other way. */
static uint64_t copy_file(int fd, off_t offset, uint64_t len)
{
    uint64_t done = 0;
    errno = 0;
    while (done < len) {
        size_t piece = len - done < TASK_BUFFER ? (size_t)(len - done) : TASK_BUFFER;
        ssize_t got = pread(fd, out_reserve(piece), piece, offset + (off_t)done);
        if (got < 0 && errno == ESPIPE)
            got = read(fd, out_reserve(piece), piece);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return done;
        out_commit((size_t)got);
        done += (uint64_t)got;
        errno = 0;
    }
    return done;
}

uint64_t out_file(int fd, off_t offset, uint64_t len)
{
    uint64_t done = 0;
    if (len <= TASK_BUFFER / 4)
        return copy_file(fd, offset, len);
    out_flush();
    while (done < len) {
        off_t at = offset + (off_t)done;
        size_t piece = len - done < TASK_PIPE ? (size_t)(len - done) : TASK_PIPE;
        ssize_t sent = sendfile(1, fd, &at, piece);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EINVAL || errno == ESPIPE || errno == EISDIR || errno == EOPNOTSUPP))
            return done + copy_file(fd, offset + (off_t)done, len - done);
        errno = sent == 0 ? 0 : errno;
        if (sent <= 0)
            return done;
        done += (uint64_t)sent;
    }
    errno = 0;
    return done;
}
