/* Owners, modes and times of folders, which wait until nothing more is put into them. */
#ifndef FIRKIN_TAR_LATE_H
#define FIRKIN_TAR_LATE_H

#include "below.h"
#include "tar.h"

/* Remember what `path` is to have. If memory is full, what `path` is not in gets it now. The errno, after a message. */
int tar_late_add(const struct below *below, const struct tar_member *member, const char *path, bool owners);

/* Everything that is remembered, the deepest first. */
int tar_late_apply(const struct below *below, bool owners);

#endif
