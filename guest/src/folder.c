/* Names in a folder, by the system call itself. */
#include "folder.h"

#include <dirent.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

bool folder_open(struct folder *folder, int fd)
{
    folder->fd = fd;
    folder->at = folder->len = 0;
    return fd >= 0;
}

const char *folder_next(struct folder *folder)
{
    for (;;) {
        if (folder->at >= folder->len) {
            long got = syscall(SYS_getdents64, folder->fd, folder->entries, sizeof folder->entries);
            if (got <= 0)
                return NULL;
            folder->at = 0;
            folder->len = (size_t)got;
        }
        const struct dirent *entry = (const struct dirent *)(folder->entries + folder->at);
        folder->at += entry->d_reclen;
        folder->type = entry->d_type;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            return entry->d_name;
    }
}

void folder_close(struct folder *folder)
{
    if (folder->fd >= 0)
        close(folder->fd);
}
