/* Files with several names: which of them is in the archive already. */
#ifndef FIRKIN_TAR_LINKS_H
#define FIRKIN_TAR_LINKS_H

#include <sys/stat.h>

/* The name under which this file was met before. NULL at the first time, which is remembered as `path`. */
const char *tar_link_of(const struct stat *info, const char *path);

#endif
