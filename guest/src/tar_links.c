/* Remembers files with several names, in memory that is not touched without them. */
#include "tar_links.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { BUCKETS = 4096, ARENA = 8 * 1024 * 1024, ENTRY_HEAD = 24 };

/* Packed one after another; a place is counted from 1 on, so that 0 is none. */
struct entry {
    uint64_t device, inode;
    uint32_t next;
    char path[4];
};

_Static_assert(offsetof(struct entry, path) < ENTRY_HEAD, "a head holds what comes before the path");

static struct {
    uint32_t buckets[BUCKETS];
    size_t len;
    _Alignas(8) unsigned char arena[ARENA];
} links;

static struct entry *entry_at(uint32_t place)
{
    return (struct entry *)(links.arena + place - 1);
}

const char *tar_link_of(const struct stat *info, const char *path)
{
    uint32_t *bucket = &links.buckets[info->st_ino % BUCKETS];
    size_t len = strlen(path) + 1;
    if (S_ISDIR(info->st_mode) || info->st_nlink < 2)
        return NULL;
    for (uint32_t at = *bucket; at; at = entry_at(at)->next)
        if (entry_at(at)->inode == info->st_ino && entry_at(at)->device == info->st_dev)
            return entry_at(at)->path;
    if (len + ENTRY_HEAD > ARENA - links.len)
        return NULL; /* full: from here on each name is a file of its own */
    struct entry *entry = entry_at((uint32_t)links.len + 1);
    entry->device = info->st_dev;
    entry->inode = info->st_ino;
    entry->next = *bucket;
    memcpy(links.arena + links.len + offsetof(struct entry, path), path, len);
    *bucket = (uint32_t)links.len + 1;
    links.len += (ENTRY_HEAD + len + 7) & ~(size_t)7;
    return NULL;
}
