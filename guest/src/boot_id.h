/* What /proc/sys/kernel/random/boot_id says. */
#ifndef FIRKIN_BOOT_ID_H
#define FIRKIN_BOOT_ID_H

/* Put a file that says the same over it, so that it can be changed. -1 after a line. */
int boot_id_cover(void);

/* Have it say this UUID. -1 after a line. */
int boot_id_set(const char *uuid);

#endif
