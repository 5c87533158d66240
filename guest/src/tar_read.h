/* Reads the headers of an archive. Whatever the archive says, memory stays bounded. */
#ifndef FIRKIN_TAR_READ_H
#define FIRKIN_TAR_READ_H

#include "pump.h"
#include "tar.h"

/* What pax headers said; `given` has a bit for each key. */
struct tar_extra {
    unsigned given;
    int64_t size, uid, gid, sparse_major, sparse_minor, real_size;
    struct timespec mtime;
    char path[TASK_PATH], link[TASK_PATH], sparse_name[TASK_PATH];
};

enum tar_key {
    KEY_PATH = 1 << 0,
    KEY_LINK = 1 << 1,
    KEY_SIZE = 1 << 2,
    KEY_UID = 1 << 3,
    KEY_GID = 1 << 4,
    KEY_MTIME = 1 << 5,
    KEY_SPARSE_MAJOR = 1 << 6,
    KEY_SPARSE_MINOR = 1 << 7,
    KEY_SPARSE_NAME = 1 << 8,
    KEY_REAL_SIZE = 1 << 9,
    KEY_OLD_SPARSE = 1 << 10, /* of versions 0.0 and 0.1, which are not read */
};

struct tar_reader {
    struct pump *pump;
    const char *problem; /* what is wrong with the archive; NULL: errno says why it could not be read */
    struct tar_extra global, local;
};

enum tar_next { TAR_MEMBER, TAR_END, TAR_BAD };

enum tar_next tar_next(struct tar_reader *reader, struct tar_member *member);

/* False, with the reason: a problem that was found, or the end of the stream, or a failed read. */
bool tar_bad(struct tar_reader *reader, const char *problem);
bool tar_cut(struct tar_reader *reader);

/* The records of a pax header of `size` bytes, from the stream into `extra`. */
bool tar_read_pax(struct tar_reader *reader, int64_t size, struct tar_extra *extra);

#endif
