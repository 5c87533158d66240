/* Puts one member of an archive in its place. */
#ifndef FIRKIN_TAR_PLACE_H
#define FIRKIN_TAR_PLACE_H

#include "below.h"
#include "tar_read.h"

struct unpack {
    struct below below;
    const char *name; /* in place of the first part of each path, NULL: as it is */
    bool owners;      /* are given, not only to ourselves */
    uint64_t left;    /* of the member's data that was not taken yet */
    struct pump pump;
    struct tar_reader reader;
    struct tar_member member;
};

/* The path below the folder for a member's: without slashes at its start, `.` and double slashes. An errno, after a
 * message, if it is too long or has `..` in it. */
int tar_path(const char *member_path, const char *name, char path[TASK_PATH]);

/* Make everything that is not a folder, and take its data. An errno, after a message. */
int tar_place(struct unpack *unpack, const char *path);

#endif
