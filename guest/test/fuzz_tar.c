/* For libFuzzer: reads an archive's headers and maps as `put` does, without making anything of them. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tar_map.h"
#include "tar_place.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_archive(struct tar_reader *reader)
{
    static struct tar_member member;
    static struct tar_run runs[TAR_MAP_MAX];
    static char path[TASK_PATH];
    while (tar_next(reader, &member) == TAR_MEMBER) {
        if (member.size < 0 || (member.sparse && tar_read_map(reader, &member, runs) >= 0 && member.size < 0))
            abort();
        if (tar_path(member.path, "name", path) == 0 && path[0] == '/')
            abort();
        if (!pump_skip(reader->pump, (uint64_t)member.size + tar_padding((uint64_t)member.size)))
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pump pump;
    static struct tar_reader reader;
    int fd = memfd_create("archive", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET) < 0)
        abort();
    pump_open(&pump, fd);
    reader.pump = &pump;
    reader.problem = NULL;
    reader.global.given = reader.local.given = 0;
    read_archive(&reader);
    close(fd);
    return 0;
}
