/* From the initramfs to the image: mounts, the writable layer, and the way back at the end. */
#ifndef FIRKIN_MOUNT_H
#define FIRKIN_MOUNT_H

#include <stdbool.h>

#include "config.h"

/* Each returns 0, or -1 after one line on the console. */
int mount_devices(void);
int mount_root(const struct config *config);
int mount_system(void);
int mount_cgroups(void);

/* Make the new root `/` and give the initramfs's memory back. */
int switch_root(void);

/* Write everything out and leave no file system writable. */
void unmount_all(void);

#endif
