/* Complaints, whole reads and writes, and numbers from words. */
#include "task_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LINE = 1024, REASON = 256 };

static size_t add_printable(char *line, size_t at, size_t room, const char *text)
{
    for (; *text && at + 4 <= room; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte >= ' ' && byte != 0x7f) {
            line[at++] = *text;
            continue;
        }
        line[at++] = '\\';
        for (int shift = 6; shift >= 0; shift -= 3)
            line[at++] = (char)('0' + (byte >> shift & 7));
    }
    return at;
}

void task_note(const char *path, const char *reason)
{
    char line[LINE];
    size_t len = add_printable(line, 0, LINE - REASON, path); /* a long path is cut, the reason never */
    len = add_printable(line, len, LINE, ": ");
    len = add_printable(line, len, LINE - 1, reason);
    line[len++] = '\n';
    write_full(2, line, len);
}

int task_refuse(int error, const char *path, const char *reason)
{
    task_note(path, reason);
    return error;
}

int task_fail(const char *path)
{
    int error = errno ? errno : EIO;
    return task_refuse(error, path, strerror(error));
}

bool task_number(const char *word, int base, long long least, long long most, long long *value)
{
    char *end;
    if ((*word < '0' || *word > '9') && *word != '-')
        return false;
    errno = 0;
    *value = strtoll(word, &end, base);
    return end != word && !*end && !errno && *value >= least && *value <= most;
}

void task_last_part(const char *path, char part[TASK_PATH])
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    if (start == end && end)
        start--; /* nothing but slashes */
    size_t len = end - start < TASK_PATH ? end - start : TASK_PATH - 1;
    memcpy(part, path + start, len);
    part[len] = 0;
}

ssize_t read_full(int fd, void *data, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t got = read(fd, (char *)data + done, len - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

bool write_full(int fd, const void *data, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t wrote = write(fd, (const char *)data + done, len - done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return false;
        done += (size_t)wrote;
    }
    return true;
}

void task_widen_pipe(int fd)
{
    fcntl(fd, F_SETPIPE_SZ, TASK_PIPE);
}

void task_allow_depth(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > TASK_MAX_DEPTH + 64)
        return;
    limit.rlim_cur = TASK_MAX_DEPTH + 64;
    if (limit.rlim_max < limit.rlim_cur)
        limit.rlim_max = limit.rlim_cur;
    setrlimit(RLIMIT_NOFILE, &limit);
}
