/* A ring of bytes beside a ring of bits that tell whose they are. */
#include "ring.h"

#include <string.h>

static int owner_of(const struct ring *ring, size_t at)
{
    return ring->second[at / 8] >> (at % 8) & 1;
}

static void set_owner(struct ring *ring, size_t at, int which)
{
    unsigned char bit = (unsigned char)(1 << (at % 8));
    ring->second[at / 8] = (unsigned char)(which ? ring->second[at / 8] | bit : ring->second[at / 8] & ~bit);
}

unsigned char *ring_reserve(struct ring *ring, size_t *room)
{
    size_t at = (ring->start + ring->len) % RING_BYTES;
    if (*room > RING_BYTES - at)
        *room = RING_BYTES - at;
    return ring->bytes + at;
}

void ring_commit(struct ring *ring, int which, size_t len)
{
    size_t at = (ring->start + ring->len) % RING_BYTES;
    for (size_t i = 0; i < len; i++)
        set_owner(ring, at + i, which);
    ring->len += len;
    if (ring->len > RING_BYTES) {
        ring->start = (ring->start + ring->len - RING_BYTES) % RING_BYTES;
        ring->len = RING_BYTES;
    }
}

size_t ring_next(const struct ring *ring, int *which, size_t most)
{
    size_t limit = RING_BYTES - ring->start, len = 0;
    limit = ring->len < limit ? ring->len : limit;
    limit = most < limit ? most : limit;
    *which = owner_of(ring, ring->start);
    while (len < limit && owner_of(ring, ring->start + len) == *which)
        len++;
    return len;
}

void ring_take(struct ring *ring, unsigned char *at, size_t len)
{
    memcpy(at, ring->bytes + ring->start, len);
    ring->start = (ring->start + len) % RING_BYTES;
    ring->len -= len;
}
