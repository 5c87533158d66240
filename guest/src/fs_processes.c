/* The tasks `files` and `processes`: what the host's statistics are made of, in one go. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "folder.h"
#include "task_io.h"
#include "tasks.h"

enum { FILE_MAX_BYTES = 65536, STAT_MAX_BYTES = 4096, COMMAND_MAX_BYTES = 4096 };

/* The first bytes of a file; none if it cannot be read. Never waits for the other end of a FIFO. */
static size_t read_start(int folder, const char *path, unsigned char *to, size_t room)
{
    int fd = openat(folder, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read_full(fd, to, room);
    if (fd >= 0)
        close(fd);
    return got < 0 ? 0 : (size_t)got;
}

int task_files(int argc, const char *const *argv)
{
    static unsigned char data[FILE_MAX_BYTES];
    for (int i = 1; i < argc; i++)
        out_blob(data, read_start(AT_FDCWD, argv[i], data, sizeof data));
    out_flush();
    return 0;
}

/* Nothing if it has gone by now. */
static void add_process(int proc, const char *name, uint32_t pid)
{
    static unsigned char text[STAT_MAX_BYTES], command[COMMAND_MAX_BYTES];
    struct stat info;
    int fd = openat(proc, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    size_t len = fstat(fd, &info) == 0 ? read_start(fd, "stat", text, sizeof text) : 0;
    if (len) {
        out_u32(pid);
        out_u32(info.st_uid);
        out_blob(text, len);
        out_blob(command, read_start(fd, "cmdline", command, sizeof command));
    }
    close(fd);
}

int task_processes(int argc, const char *const *argv)
{
    struct folder proc;
    long long pid;
    (void)argc;
    (void)argv;
    if (!folder_open(&proc, open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC)))
        return task_fail("/proc");
    for (const char *name; (name = folder_next(&proc));)
        if (task_number(name, 10, 1, INT32_MAX, &pid))
            add_process(proc.fd, name, (uint32_t)pid);
    folder_close(&proc);
    out_flush();
    return 0;
}
