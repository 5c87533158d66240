/* The folders that inotify watches, by its numbers for them. Bounded. */
#ifndef FIRKIN_WATCHED_H
#define FIRKIN_WATCHED_H

#include <stdbool.h>

/* Remember the path of a watch, in place of what it had. False with ENOSPC when there are too many. */
bool watched_add(int number, const char *path);

/* NULL: there is none by this number. */
const char *watched_path(int number);
void watched_forget(int number);

/* The number of some watch at `path` or below; -1: none. */
int watched_below(const char *path);

#endif
