/* Files that the configuration puts into the writable layer. */
#ifndef FIRKIN_FILES_H
#define FIRKIN_FILES_H

#include "config.h"

/* Write each file with its mode and owner; a line on the console for each that failed. */
void files_write(const struct config *config);

#endif
