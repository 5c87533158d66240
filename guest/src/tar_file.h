/* One file in an archive. */
#ifndef FIRKIN_TAR_FILE_H
#define FIRKIN_TAR_FILE_H

#include <sys/stat.h>

#include "tar.h"

/* Header and content on stdout; `member` has everything but sizes. False, after a note, when it could not be read. */
bool tar_file(int fd, const struct stat *info, struct tar_member *member);

#endif
