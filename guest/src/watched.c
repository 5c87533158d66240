/* Numbers and paths side by side. Looking through all of them is quick enough: inotify itself takes longer to tell. */
#include "watched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WATCHED = 16384, MAX_BYTES = 4 * 1024 * 1024 };

static struct {
    int count, last;
    size_t bytes;
    int numbers[MAX_WATCHED];
    char *paths[MAX_WATCHED];
} watched;

static int find(int number)
{
    if (watched.last < watched.count && watched.numbers[watched.last] == number)
        return watched.last;
    for (int i = 0; i < watched.count; i++)
        if (watched.numbers[i] == number)
            return watched.last = i;
    return -1;
}

bool watched_add(int number, const char *path)
{
    size_t len = strlen(path) + 1;
    watched_forget(number);
    char *copy = watched.count < MAX_WATCHED && watched.bytes + len <= MAX_BYTES ? malloc(len) : NULL;
    if (!copy) {
        errno = ENOSPC;
        return false;
    }
    memcpy(copy, path, len);
    watched.numbers[watched.count] = number;
    watched.paths[watched.count++] = copy;
    watched.bytes += len;
    return true;
}

const char *watched_path(int number)
{
    int at = find(number);
    return at < 0 ? NULL : watched.paths[at];
}

void watched_forget(int number)
{
    int at = find(number);
    if (at < 0)
        return;
    watched.bytes -= strlen(watched.paths[at]) + 1;
    free(watched.paths[at]);
    watched.numbers[at] = watched.numbers[--watched.count];
    watched.paths[at] = watched.paths[watched.count];
}

int watched_below(const char *path)
{
    size_t len = strlen(path);
    for (int i = 0; i < watched.count; i++)
        if (strncmp(watched.paths[i], path, len) == 0 && (!watched.paths[i][len] || watched.paths[i][len] == '/'))
            return watched.numbers[i];
    return -1;
}
