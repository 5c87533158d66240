/* Reads headers one after another, until the one of a member: pax and GNU's long names are its forerunners. */
#include "tar_read.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/sysmacros.h>

bool tar_bad(struct tar_reader *reader, const char *problem)
{
    reader->problem = problem;
    return false;
}

bool tar_cut(struct tar_reader *reader)
{
    errno = reader->pump->error;
    return tar_bad(reader, reader->pump->error ? NULL : "the archive ends in the middle");
}

static bool is_zero(const struct tar_block *block)
{
    static const struct tar_block zero;
    return memcmp(block, &zero, sizeof zero) == 0;
}

/* Old programs summed up signed bytes. */
static bool has_checksum(const struct tar_block *block)
{
    const signed char *bytes = (const signed char *)block;
    int64_t sum;
    int signed_sum = 8 * ' ';
    if (!tar_parse_number(block->checksum, sizeof block->checksum, &sum))
        return false;
    for (size_t i = 0; i < TAR_BLOCK; i++)
        signed_sum += bytes[i];
    for (size_t i = 0; i < sizeof block->checksum; i++)
        signed_sum -= (signed char)block->checksum[i];
    return sum == tar_checksum(block) || sum == signed_sum;
}

static size_t copy_field(char *to, const char *field, size_t len)
{
    len = strnlen(field, len);
    memcpy(to, field, len);
    to[len] = 0;
    return len;
}

static void copy_path(struct tar_member *member, const struct tar_block *block)
{
    size_t at = 0;
    if (memcmp(block->magic, "ustar", 6) == 0 && block->prefix[0]) {
        at = copy_field(member->path, block->prefix, sizeof block->prefix);
        member->path[at++] = '/';
    }
    copy_field(member->path + at, block->name, sizeof block->name);
}

static bool parse_id(const char field[8], unsigned *id)
{
    int64_t value;
    bool good = tar_parse_number(field, 8, &value) && value >= 0 && value < UINT_MAX;
    *id = good ? (unsigned)value : 0;
    return good;
}

static bool parse_block(struct tar_member *member, const struct tar_block *block)
{
    int64_t mode, seconds;
    unsigned device_major = 0, device_minor = 0;
    bool good = tar_parse_number(block->mode, sizeof block->mode, &mode)
        && tar_parse_number(block->size, sizeof block->size, &member->size) && member->size >= 0
        && tar_parse_number(block->mtime, sizeof block->mtime, &seconds)
        && parse_id(block->uid, &member->uid) && parse_id(block->gid, &member->gid);
    if (block->type == TAR_CHAR_DEVICE || block->type == TAR_BLOCK_DEVICE)
        good = good && parse_id(block->major, &device_major) && parse_id(block->minor, &device_minor);
    if (!good)
        return false;
    member->type = block->type && block->type != TAR_CONTIGUOUS ? block->type : TAR_FILE;
    member->mode = (mode_t)mode & 07777;
    member->mtime = (struct timespec){seconds, 0};
    member->device = makedev(device_major, device_minor);
    member->sparse = false;
    copy_path(member, block);
    copy_field(member->link, block->link, sizeof block->link);
    return true;
}

/* GNU's way to say a long name; pax's word, which comes with more, is not overruled. */
static bool read_long(struct tar_reader *reader, int64_t size, char *to, unsigned key)
{
    if (size >= TASK_PATH)
        return tar_bad(reader, "a name is too long");
    if (!pump_read(reader->pump, to, (size_t)size) || !pump_skip(reader->pump, tar_padding((uint64_t)size)))
        return tar_cut(reader);
    to[size] = 0;
    reader->local.given |= key;
    return true;
}

static void apply(struct tar_member *member, const struct tar_extra *extra)
{
    unsigned given = extra->given;
    if (given & KEY_PATH)
        strcpy(member->path, extra->path);
    if (given & KEY_SPARSE_NAME)
        strcpy(member->path, extra->sparse_name);
    if (given & KEY_LINK)
        strcpy(member->link, extra->link);
    if (given & KEY_SIZE)
        member->size = extra->size;
    if (given & KEY_UID)
        member->uid = (uid_t)extra->uid;
    if (given & KEY_GID)
        member->gid = (gid_t)extra->gid;
    if (given & KEY_MTIME)
        member->mtime = extra->mtime;
}

static bool apply_sparse(struct tar_reader *reader, struct tar_member *member)
{
    const struct tar_extra *extra = &reader->local;
    bool modern = extra->given & KEY_SPARSE_MAJOR && extra->given & KEY_REAL_SIZE;
    if (member->type == TAR_GNU_SPARSE || extra->given & KEY_OLD_SPARSE
        || (modern && (extra->sparse_major != 1 || extra->sparse_minor != 0)))
        return tar_bad(reader, "a sparse file is in a form that is not read here; tar writes the other with "
                               "--format=posix --sparse-version=1.0");
    member->sparse = modern && member->type == TAR_FILE;
    if (member->sparse)
        member->real_size = extra->real_size;
    return true;
}

/* Other kinds have no data, whatever their size says: links of some programs have that of what they point to. */
static bool has_data(const struct tar_member *member)
{
    return !(member->type >= TAR_HARD_LINK && member->type <= TAR_FIFO);
}

static bool finish(struct tar_reader *reader, struct tar_member *member)
{
    apply(member, &reader->global);
    apply(member, &reader->local);
    bool good = apply_sparse(reader, member);
    size_t len = strlen(member->path);
    if (member->type == TAR_FILE && len && member->path[len - 1] == '/' && !member->size)
        member->type = TAR_FOLDER; /* as it was written before there was a type for them */
    if (!has_data(member))
        member->size = 0;
    reader->local.given = 0;
    return good;
}

/* Whether the header was a forerunner; `good` says whether it could be read. */
static bool take_forerunner(struct tar_reader *reader, const struct tar_member *member, bool *good)
{
    switch (member->type) {
    case TAR_PAX:
        *good = tar_read_pax(reader, member->size, &reader->local);
        return true;
    case TAR_PAX_GLOBAL:
        *good = tar_read_pax(reader, member->size, &reader->global);
        return true;
    case TAR_GNU_LONG_NAME:
        *good = read_long(reader, member->size, reader->local.path, KEY_PATH);
        return true;
    case TAR_GNU_LONG_LINK:
        *good = read_long(reader, member->size, reader->local.link, KEY_LINK);
        return true;
    default:
        return false;
    }
}

enum tar_next tar_next(struct tar_reader *reader, struct tar_member *member)
{
    struct tar_block block;
    bool good = true;
    do {
        if (!pump_read(reader->pump, &block, sizeof block))
            good = tar_cut(reader);
        else if (is_zero(&block))
            return TAR_END;
        else if (!has_checksum(&block) || !parse_block(member, &block))
            good = tar_bad(reader, "a header is damaged, or this is no tar archive");
    } while (good && take_forerunner(reader, member, &good) && good);
    return good && finish(reader, member) ? TAR_MEMBER : TAR_BAD;
}
