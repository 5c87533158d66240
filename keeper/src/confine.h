/* Give up what a program that copies bytes does not need. */
#ifndef FIRKIN_CONFINE_H
#define FIRKIN_CONFINE_H

#include <stdint.h>

/* Keep the working folder, the open descriptors and a dozen system calls; nothing of it comes back. Files stay below
   `file_size` bytes. Where the kernel refuses a part, the rest still holds. */
void confine(uint64_t file_size);

#endif
