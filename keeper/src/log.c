/* Entries are written before the bytes they speak of: who reads bytes finds their time. Every step of a rotation may be
   the last one that is done: what it leaves is a log, and at worst times that are not known. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DATA "console.log"
#define DATA_OLD "console.log.1"
#define TIMES "console.log.times"
#define TIMES_OLD "console.log.1.times"

enum { TIMES_SHARE = 4, ENTRY_EVERY_NS = 10 * 1000 * 1000, NOTE_MAX = 160 };

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int open_file(const char *name, uint64_t *size)
{
    struct stat status;
    int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    *size = fd >= 0 && fstat(fd, &status) == 0 ? (uint64_t)status.st_size : 0;
    return fd;
}

static void close_files(struct log *log)
{
    if (log->data >= 0)
        close(log->data);
    if (log->times >= 0)
        close(log->times);
    log->data = log->times = -1;
}

static void open_files(struct log *log)
{
    log->data = open_file(DATA, &log->data_size);
    if (log->data < 0) {
        log->reason = errno;
        return;
    }
    log->times = open_file(TIMES, &log->times_size);
    log->noted_ns = 0;
    /* A half entry, or times of a log that was moved away under them. */
    uint64_t whole = log->data_size ? log->times_size - log->times_size % sizeof(struct entry) : 0;
    if (whole != log->times_size && ftruncate(log->times, (off_t)whole) == 0)
        log->times_size = whole;
}

void log_open(struct log *log, uint64_t limit)
{
    *log = (struct log){.limit = limit, .data = -1, .times = -1};
    open_files(log);
}

static bool full(const struct log *log, size_t more)
{
    return log->data_size + more > log->limit || log->times_size + sizeof(struct entry) > log->limit / TIMES_SHARE;
}

static void rotate(struct log *log)
{
    close_files(log);
    unlink(TIMES_OLD);
    if (rename(DATA, DATA_OLD) < 0 && errno != ENOENT) {
        log->reason = errno;
        return;
    }
    rename(TIMES, TIMES_OLD);
    open_files(log);
}

/* How much of it was written; what is missing has its reason in errno. */
static size_t write_some(int fd, const char *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t written = write(fd, data + done, size - done);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            break;
        done += (size_t)written;
    }
    return done;
}

static bool add_bytes(struct log *log, const char *data, size_t size)
{
    size_t done = write_some(log->data, data, size);
    log->data_size += done;
    if (done == size)
        return true;
    log->reason = errno;
    log->lost += size - done;
    return false;
}

static bool begins_line(const struct log *log, const char *data, size_t size)
{
    return !log->within_line || memchr(data, '\n', size - 1);
}

static void note_time(struct log *log)
{
    struct entry entry = {now_ns(), log->data_size};
    if (log->times < 0 || (log->noted_ns && entry.time_ns - log->noted_ns < ENTRY_EVERY_NS))
        return;
    if (write_some(log->times, (const char *)&entry, sizeof entry) == sizeof entry) {
        log->times_size += sizeof entry;
        log->noted_ns = entry.time_ns;
    } else if (ftruncate(log->times, (off_t)log->times_size) < 0) {
        close(log->times); /* the rest of this file stays without times */
        log->times = -1;
    }
}

/* Say what is missing here, once there is room to say it. */
static bool note_loss(struct log *log)
{
    char note[NOTE_MAX];
    uint64_t lost = log->lost;
    int size = snprintf(note, sizeof note, "\r\n[firkin: %llu bytes of the console are lost: %s]\r\n",
                        (unsigned long long)lost, strerror(log->reason));
    log->lost = 0;
    if (add_bytes(log, note, (size_t)size))
        return true;
    log->lost = lost;
    return false;
}

void log_add(struct log *log, const char *data, size_t size)
{
    if (log->data < 0)
        open_files(log);
    if (log->data >= 0 && full(log, size + NOTE_MAX))
        rotate(log);
    if (log->data < 0 || (log->lost && !note_loss(log))) {
        log->lost += size;
    } else {
        if (!log->noted_ns || begins_line(log, data, size))
            note_time(log);
        add_bytes(log, data, size);
    }
    log->within_line = data[size - 1] != '\n';
}
