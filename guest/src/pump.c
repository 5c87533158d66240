/* Reads a stream in large pieces. Long runs into a file are spliced: the pages move within the kernel. */
#include "pump.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "task_io.h"

enum { WORTH_SPLICING = 64 * 1024 };

void pump_open(struct pump *pump, int fd)
{
    pump->fd = fd;
    pump->error = 0;
    pump->cannot_splice = false;
    pump->taken = 0;
    pump->at = pump->len = 0;
    task_widen_pipe(fd);
}

static bool refill(struct pump *pump)
{
    ssize_t got;
    do
        got = read(pump->fd, pump->data, sizeof pump->data);
    while (got < 0 && errno == EINTR);
    pump->at = 0;
    pump->len = got > 0 ? (size_t)got : 0;
    pump->error = got < 0 ? errno : 0;
    return got > 0;
}

/* Hand on up to `len` bytes of what is held, after reading if that is nothing. 0: there are no more. */
static size_t take(struct pump *pump, uint64_t len, unsigned char **from)
{
    if (pump->at == pump->len && !refill(pump))
        return 0;
    size_t held = pump->len - pump->at;
    size_t piece = held < len ? held : (size_t)len;
    *from = pump->data + pump->at;
    pump->at += piece;
    pump->taken += piece;
    return piece;
}

bool pump_read(struct pump *pump, void *to, size_t len)
{
    unsigned char *from;
    for (size_t piece; len; len -= piece) {
        piece = take(pump, len, &from);
        if (!piece)
            return false;
        memcpy(to, from, piece);
        to = (char *)to + piece;
    }
    return true;
}

bool pump_skip(struct pump *pump, uint64_t len)
{
    unsigned char *from;
    for (size_t piece; len; len -= piece)
        if (!(piece = take(pump, len, &from)))
            return false;
    return true;
}

static bool write_at(int file, const unsigned char *data, size_t len, off_t *offset)
{
    while (len) {
        ssize_t wrote = *offset < 0 ? write(file, data, len) : pwrite(file, data, len, *offset);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return false;
        data += wrote;
        len -= (size_t)wrote;
        if (*offset >= 0)
            *offset += wrote;
    }
    return true;
}

/* One splice, or 0 where that is not possible or the stream ended: reading tells which. */
static ssize_t splice_some(struct pump *pump, int file, off_t *offset, uint64_t len)
{
    ssize_t moved;
    size_t piece = len < TASK_PIPE ? (size_t)len : TASK_PIPE;
    if (pump->cannot_splice || pump->at < pump->len || len < WORTH_SPLICING)
        return 0;
    do
        moved = splice(pump->fd, NULL, file, *offset < 0 ? NULL : offset, piece, SPLICE_F_MOVE | SPLICE_F_MORE);
    while (moved < 0 && errno == EINTR);
    if (moved < 0 && (errno == EINVAL || errno == EBADF || errno == ESPIPE)) {
        pump->cannot_splice = true;
        return 0;
    }
    pump->taken += moved > 0 ? (uint64_t)moved : 0;
    return moved;
}

enum pumped pump_to_file(struct pump *pump, int file, off_t offset, uint64_t len)
{
    unsigned char *from;
    while (len) {
        ssize_t moved = splice_some(pump, file, &offset, len);
        if (moved < 0)
            return PUMP_WRITE_FAILED;
        size_t piece = moved ? (size_t)moved : take(pump, len, &from);
        if (!piece) {
            errno = pump->error;
            return pump->error ? PUMP_READ_FAILED : PUMP_ENDED;
        }
        if (!moved && !write_at(file, from, piece, &offset))
            return PUMP_WRITE_FAILED;
        len -= piece;
    }
    return PUMP_DONE;
}
