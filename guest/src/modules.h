/* Kernel modules that the initramfs brings for distribution kernels. */
#ifndef FIRKIN_MODULES_H
#define FIRKIN_MODULES_H

/* Load each path listed in /lib/firkin/modules.load, in order. A module that fails is reported and passed over. */
void modules_load(void);

#endif
