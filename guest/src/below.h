/* Paths below one folder: nothing that is opened through here lies outside of it, whatever links are on the way. */
#ifndef FIRKIN_BELOW_H
#define FIRKIN_BELOW_H

#include <stdbool.h>
#include <stdint.h>

#include "task_io.h"

struct below {
    int root;         /* the folder */
    uint64_t resolve; /* how openat2 is to hold paths in */
    int parent;       /* the folder opened last, -1: none */
    char parent_path[TASK_PATH];
};

/* False with errno when `path` is no folder. */
bool below_open(struct below *below, const char *path);

/* Open a folder (or, with O_PATH, anything that `flags` allow). EXDEV: a link on the way leads out. */
int below_openat(const struct below *below, const char *path, int flags);

/* The folder that `path` is in, made with the folders above it if it is missing; `name` becomes the rest of `path`.
 * The descriptor stays ours. -1 with errno. */
int below_parent(struct below *below, const char *path, const char **name);

/* Say why one of these failed, by errno, which is returned. */
int below_fail(const char *path);

void below_close(struct below *below);

#endif
