/* The last bytes of two outputs, in the order in which they came; older ones make room. */
#ifndef FIRKIN_RING_H
#define FIRKIN_RING_H

#include <stddef.h>

enum { RING_BYTES = 262144 };

struct ring {
    size_t start, len;
    unsigned char bytes[RING_BYTES];
    unsigned char second[RING_BYTES / 8]; /* a bit each: of the second output */
};

/* Where up to `room` bytes may be put; `room` is what fits in one piece. */
unsigned char *ring_reserve(struct ring *ring, size_t *room);

/* So many bytes of output `which` (0 or 1) were put there. */
void ring_commit(struct ring *ring, int which, size_t len);

/* The length of the next piece, at most `most`, which is all of one output; 0 when there is none. */
size_t ring_next(const struct ring *ring, int *which, size_t most);

/* Take `len` bytes of that piece out. */
void ring_take(struct ring *ring, unsigned char *at, size_t len);

#endif
