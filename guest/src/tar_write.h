/* Headers of an archive on stdout. */
#ifndef FIRKIN_TAR_WRITE_H
#define FIRKIN_TAR_WRITE_H

#include "tar.h"

/* The most that one header takes, with what pax has to add. */
enum { TAR_HEADER_MAX = 3 * TASK_PATH + 4 * TAR_BLOCK };

void tar_write_header(const struct tar_member *member);
void tar_write_end(void);

#endif
