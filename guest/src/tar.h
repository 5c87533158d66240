/* Archives as POSIX pax and GNU write them: the header block, and what a member is. */
#ifndef FIRKIN_TAR_H
#define FIRKIN_TAR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "task_io.h"

/* Runs of one sparse file that are held. Tests make it small. */
#ifndef TAR_MAP_MAX
#define TAR_MAP_MAX 262144
#endif

enum { TAR_BLOCK = 512 };

struct tar_block {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
    char magic[6], version[2], uname[32], gname[32], major[8], minor[8], prefix[155], unused[12];
};

_Static_assert(sizeof(struct tar_block) == TAR_BLOCK, "a header is one block");

enum tar_type {
    TAR_FILE = '0',
    TAR_HARD_LINK = '1',
    TAR_SYMLINK = '2',
    TAR_CHAR_DEVICE = '3',
    TAR_BLOCK_DEVICE = '4',
    TAR_FOLDER = '5',
    TAR_FIFO = '6',
    TAR_CONTIGUOUS = '7', /* a file to everybody today */
    TAR_PAX = 'x',
    TAR_PAX_GLOBAL = 'g',
    TAR_GNU_LONG_LINK = 'K',
    TAR_GNU_LONG_NAME = 'L',
    TAR_GNU_SPARSE = 'S',
};

struct tar_member {
    char type;
    bool sparse; /* its data begins with a map */
    mode_t mode;
    uid_t uid;
    gid_t gid;
    dev_t device;
    int64_t size; /* of its data in the archive */
    int64_t real_size;
    struct timespec mtime;
    char path[TASK_PATH], link[TASK_PATH];
};

/* A run of bytes in a sparse file. */
struct tar_run {
    int64_t offset, len;
};

/* Octal, or base 256 where the first bit is set. False when it is neither, or does not fit. */
bool tar_parse_number(const char *field, size_t len, int64_t *value);
void tar_format_number(char *field, size_t len, int64_t value);

/* The sum of all bytes, the checksum's own counted as blanks. */
unsigned tar_checksum(const struct tar_block *block);

static inline uint64_t tar_padding(uint64_t size)
{
    return -size & (TAR_BLOCK - 1);
}

#endif
