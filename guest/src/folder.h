/* Names in a folder, read without malloc (whose first use costs milliseconds under emulation). */
#ifndef FIRKIN_FOLDER_H
#define FIRKIN_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

struct folder {
    int fd;
    unsigned char type; /* DT_* of the name given last */
    size_t at, len;
    _Alignas(8) char entries[2048];
};

/* Takes the descriptor over; false when it is none (-1). */
bool folder_open(struct folder *folder, int fd);

/* The next name but . and .., or NULL. */
const char *folder_next(struct folder *folder);
void folder_close(struct folder *folder);

#endif
