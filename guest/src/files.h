/* Files that the configuration puts into the writable layer. */
#ifndef FIRKIN_FILES_H
#define FIRKIN_FILES_H

#include "config.h"

/* Write each file with its mode and owner. -1 after a line for each that failed. */
int files_write(const struct config *config);

#endif
