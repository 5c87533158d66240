/* A stream that is read in large pieces, and whose long runs go into files without a copy here. */
#ifndef FIRKIN_PUMP_H
#define FIRKIN_PUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PUMP_BUFFER = 256 * 1024 };

struct pump {
    int fd;
    int error;          /* errno of a failed read, 0: the stream ended */
    bool cannot_splice; /* not a pipe, or the file's system takes none */
    uint64_t taken;     /* bytes handed on so far */
    size_t at, len;     /* what is held: data[at..len] */
    unsigned char data[PUMP_BUFFER];
};

enum pumped { PUMP_DONE, PUMP_ENDED, PUMP_READ_FAILED, PUMP_WRITE_FAILED };

void pump_open(struct pump *pump, int fd);

/* False when the stream ended or failed before `len` bytes came. */
bool pump_read(struct pump *pump, void *to, size_t len);
bool pump_skip(struct pump *pump, uint64_t len);

/* Into a file at `offset`, or where it stands if that is -1. errno is set for PUMP_WRITE_FAILED and PUMP_READ_FAILED. */
enum pumped pump_to_file(struct pump *pump, int file, off_t offset, uint64_t len);

#endif
