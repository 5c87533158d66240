/* Fuzzer: any bytes as an archive, whose headers and maps are read as `put` reads them. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "tar_map.h"

/* No fuzzer guesses a checksum: headers get the right one, unless the field says that it is to stay. */
static void mend_checksums(uint8_t *data, size_t size)
{
    struct tar_block block;
    for (size_t at = 0; at + sizeof block <= size; at += sizeof block) {
        memcpy(&block, data + at, sizeof block);
        if (memcmp(block.magic, "ustar", 5) != 0 || block.checksum[0] == '!')
            continue;
        tar_format_number(block.checksum, sizeof block.checksum, tar_checksum(&block));
        memcpy(data + at, &block, sizeof block);
    }
}

static void read_archive(struct tar_reader *reader)
{
    static struct tar_member member;
    static struct tar_run runs[TAR_MAP_MAX];
    while (tar_next(reader, &member) == TAR_MEMBER) {
        if (member.size < 0)
            abort();
        if (member.sparse && tar_read_map(reader, &member, runs) < 0)
            return;
        if (member.size < 0 || strlen(member.path) >= TASK_PATH)
            abort();
        if (!pump_skip(reader->pump, (uint64_t)member.size + tar_padding((uint64_t)member.size)))
            return;
    }
}

/* A file in memory that holds the archive. */
static int open_archive(const uint8_t *data, size_t size)
{
    uint8_t *archive = malloc(size ? size : 1);
    int fd = memfd_create("archive", MFD_CLOEXEC);
    memcpy(archive, data, size);
    mend_checksums(archive, size);
    if (fd < 0 || !write_full(fd, archive, size) || lseek(fd, 0, SEEK_SET) < 0)
        abort();
    free(archive);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pump pump;
    static struct tar_reader reader;
    pump_open(&pump, open_archive(data, size));
    reader.pump = &pump;
    reader.problem = NULL;
    reader.global.given = reader.local.given = 0;
    read_archive(&reader);
    close(pump.fd);
    return 0;
}
