/* A log in two files of bounded size, with the time at which its lines came beside each. */
#ifndef FIRKIN_LOG_H
#define FIRKIN_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MIN_LIMIT = 1 << 18 };

/* What came at `offset` of the log and later, until the next entry, came at `time_ns` since 1970. */
struct entry {
    uint64_t time_ns, offset;
};

struct log {
    uint64_t limit; /* bytes of one file */
    int data, times;
    uint64_t data_size, times_size;
    uint64_t noted_ns;   /* the last entry's time; 0: this file has none of ours yet */
    bool within_line;
    uint64_t lost;       /* bytes since the last one that was written */
    int reason;          /* errno of their loss */
};

/* The log of the working folder, which is gone on with if it is there. */
void log_open(struct log *log, uint64_t limit);

/* Append. What cannot be written is dropped, and noted in the log when there is room again. */
void log_add(struct log *log, const char *data, size_t size);

#endif
