/* Writes headers: ustar's block, and before it a pax header for what does not fit in there. */
#include "tar_write.h"

#include <string.h>
#include <sys/sysmacros.h>

struct records {
    size_t len;
    char data[3 * TASK_PATH];
};

/* `value` in decimal at the end of a buffer of 24 bytes. */
static char *decimal(char text[24], uint64_t value)
{
    char *at = text + 23;
    *at = 0;
    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    return at;
}

static void add_text(struct records *records, const char *text)
{
    size_t len = strlen(text);
    memcpy(records->data + records->len, text, len);
    records->len += len;
}

/* A record begins with its own length, which counts its own digits. */
static void add_record(struct records *records, const char *key, const char *value)
{
    char text[24];
    size_t rest = strlen(key) + strlen(value) + 3;
    size_t len = rest + 1;
    while (len != rest + strlen(decimal(text, len)))
        len = rest + strlen(decimal(text, len));
    add_text(records, decimal(text, len));
    add_text(records, " ");
    add_text(records, key);
    add_text(records, "=");
    add_text(records, value);
    add_text(records, "\n");
}

static void add_number(struct records *records, const char *key, uint64_t value)
{
    char text[24];
    add_record(records, key, decimal(text, value));
}

/* Seconds with nine digits of fraction; before 1970 both count downwards. */
static void add_time(struct records *records, const char *key, struct timespec time)
{
    char value[64] = "", text[24];
    bool negative = time.tv_sec < 0;
    uint64_t seconds = negative ? -(uint64_t)time.tv_sec : (uint64_t)time.tv_sec;
    uint64_t fraction = (uint64_t)time.tv_nsec;
    if (negative && fraction) {
        seconds--;
        fraction = 1000000000 - fraction;
    }
    strcat(value, negative ? "-" : "");
    strcat(value, decimal(text, seconds));
    if (fraction) {
        strcat(value, ".");
        strcat(value, decimal(text, 1000000000 + fraction) + 1);
    }
    add_record(records, key, value);
}

static bool fits(int64_t value, int digits)
{
    return value >= 0 && (uint64_t)value >> (3 * digits) == 0;
}

static void add_sparse(struct records *records, const struct tar_member *member)
{
    add_number(records, "GNU.sparse.major", 1);
    add_number(records, "GNU.sparse.minor", 0);
    add_record(records, "GNU.sparse.name", member->path);
    add_number(records, "GNU.sparse.realsize", (uint64_t)member->real_size);
}

static void collect(struct records *records, const struct tar_member *member)
{
    records->len = 0;
    if (member->sparse)
        add_sparse(records, member);
    else if (strlen(member->path) > sizeof ((struct tar_block *)0)->name)
        add_record(records, "path", member->path);
    if (strlen(member->link) > sizeof ((struct tar_block *)0)->link)
        add_record(records, "linkpath", member->link);
    if (!fits(member->size, 11))
        add_number(records, "size", (uint64_t)member->size);
    if (!fits(member->uid, 7))
        add_number(records, "uid", member->uid);
    if (!fits(member->gid, 7))
        add_number(records, "gid", member->gid);
    if (member->mtime.tv_nsec || !fits(member->mtime.tv_sec, 11))
        add_time(records, "mtime", member->mtime);
}

static void write_block(struct tar_block *block, const struct tar_member *member, const char *name)
{
    memcpy(block->name, name, strnlen(name, sizeof block->name));
    memcpy(block->link, member->link, strnlen(member->link, sizeof block->link));
    tar_format_number(block->mode, sizeof block->mode, member->mode);
    tar_format_number(block->uid, sizeof block->uid, member->uid);
    tar_format_number(block->gid, sizeof block->gid, member->gid);
    tar_format_number(block->size, sizeof block->size, member->size);
    tar_format_number(block->mtime, sizeof block->mtime, member->mtime.tv_sec);
    tar_format_number(block->major, sizeof block->major, major(member->device));
    tar_format_number(block->minor, sizeof block->minor, minor(member->device));
    memcpy(block->magic, "ustar\0" "00", sizeof block->magic + sizeof block->version);
    block->type = member->type;
    tar_format_number(block->checksum, 7, tar_checksum(block));
    block->checksum[7] = ' ';
    out_add(block, sizeof *block);
}

static void write_pax(const struct records *records)
{
    static struct tar_member member = {0};
    struct tar_block block = {0};
    member.type = TAR_PAX;
    member.mode = 0644;
    member.size = (int64_t)records->len;
    write_block(&block, &member, "pax");
    out_add(records->data, records->len);
    out_zeros(tar_padding(records->len));
}

void tar_write_header(const struct tar_member *member)
{
    static struct records records;
    struct tar_block block = {0};
    collect(&records, member);
    if (records.len)
        write_pax(&records);
    write_block(&block, member, member->sparse ? "GNUSparseFile.0/sparse" : member->path);
}

void tar_write_end(void)
{
    out_zeros(2 * TAR_BLOCK);
}
