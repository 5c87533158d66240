/* Where the data of a sparse file is: as an archive says it, and as a file system does. */
#ifndef FIRKIN_TAR_MAP_H
#define FIRKIN_TAR_MAP_H

#include "tar_read.h"

/* Read the map at the start of a sparse member's data. `member->size` becomes what is left of the data.
 * The number of runs, which are in order and add up to that; or -1. */
long tar_read_map(struct tar_reader *reader, struct tar_member *member, struct tar_run runs[TAR_MAP_MAX]);

/* Ask the file system. The number of runs, or -1 where it cannot say. */
long tar_find_map(int fd, int64_t size, struct tar_run runs[TAR_MAP_MAX]);

/* Bytes that the map takes in an archive; and the map itself, on stdout. */
int64_t tar_map_size(const struct tar_run *runs, long count);
void tar_write_map(const struct tar_run *runs, long count);

#endif
