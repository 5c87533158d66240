/* Reads pax records as they come, without holding a header; what is not known is skipped. */
#include <limits.h>
#include <string.h>

#include "tar_read.h"

enum { KEY_MAX = 32, NUMBER_MAX = 40 };

static const struct {
    const char *name;
    unsigned key;
} KEYS[] = {
    {"path", KEY_PATH},
    {"linkpath", KEY_LINK},
    {"size", KEY_SIZE},
    {"uid", KEY_UID},
    {"gid", KEY_GID},
    {"mtime", KEY_MTIME},
    {"GNU.sparse.major", KEY_SPARSE_MAJOR},
    {"GNU.sparse.minor", KEY_SPARSE_MINOR},
    {"GNU.sparse.name", KEY_SPARSE_NAME},
    {"GNU.sparse.realsize", KEY_REAL_SIZE},
    {"GNU.sparse.map", KEY_OLD_SPARSE},
    {"GNU.sparse.numblocks", KEY_OLD_SPARSE},
};

static bool parse_digits(const char **at, int64_t *value)
{
    const char *start = *at;
    for (*value = 0; **at >= '0' && **at <= '9'; ++*at) {
        if (*value > (INT64_MAX - 9) / 10)
            return false;
        *value = *value * 10 + (**at - '0');
    }
    return *at != start;
}

static bool parse_number(const char *text, int64_t *value)
{
    return parse_digits(&text, value) && !*text;
}

static bool parse_fraction(const char *at, long *nanoseconds)
{
    long scale = 100000000;
    for (*nanoseconds = 0; *at >= '0' && *at <= '9'; at++, scale /= 10)
        *nanoseconds += (*at - '0') * scale;
    return !*at;
}

static bool parse_time(const char *text, struct timespec *time)
{
    int64_t seconds;
    long fraction = 0;
    bool negative = *text == '-';
    text += negative;
    if (!parse_digits(&text, &seconds) || (*text && *text != '.') || (*text && !parse_fraction(text + 1, &fraction)))
        return false;
    *time = (struct timespec){negative ? -seconds : seconds, fraction};
    if (negative && fraction)
        *time = (struct timespec){-seconds - 1, 1000000000 - fraction};
    return true;
}

/* Where a value that is text goes. */
static char *text_of(struct tar_extra *extra, unsigned key)
{
    return key == KEY_PATH ? extra->path : key == KEY_LINK ? extra->link : extra->sparse_name;
}

static bool set_number(struct tar_extra *extra, unsigned key, const char *text)
{
    switch (key) {
    case KEY_SIZE:
        return parse_number(text, &extra->size);
    case KEY_UID:
        return parse_number(text, &extra->uid) && extra->uid < UINT_MAX;
    case KEY_GID:
        return parse_number(text, &extra->gid) && extra->gid < UINT_MAX;
    case KEY_SPARSE_MAJOR:
        return parse_number(text, &extra->sparse_major);
    case KEY_SPARSE_MINOR:
        return parse_number(text, &extra->sparse_minor);
    case KEY_REAL_SIZE:
        return parse_number(text, &extra->real_size);
    default:
        return parse_time(text, &extra->mtime);
    }
}

/* An empty value takes back what an earlier header said. */
static bool read_value(struct tar_reader *reader, unsigned key, uint64_t len, struct tar_extra *extra)
{
    char number[NUMBER_MAX];
    bool text = key & (KEY_PATH | KEY_LINK | KEY_SPARSE_NAME);
    char *value = text ? text_of(extra, key) : number;
    if (key == 0 || key == KEY_OLD_SPARSE) {
        extra->given |= key;
        return pump_skip(reader->pump, len) || tar_cut(reader);
    }
    if (len >= (text ? TASK_PATH : NUMBER_MAX))
        return tar_bad(reader, "a pax header has a value that is too long");
    if (!pump_read(reader->pump, value, (size_t)len))
        return tar_cut(reader);
    value[len] = 0;
    if (strlen(value) != len || (len && !text && !set_number(extra, key, value)))
        return tar_bad(reader, "a pax header has a value that makes no sense");
    extra->given = len ? extra->given | key : extra->given & ~key;
    return true;
}

/* Text up to `end`, which is taken too; `left` counts down. Longer texts are cut in `text`, never beyond `left`. */
static bool read_until(struct tar_reader *reader, char end, char *text, size_t room, uint64_t *left)
{
    size_t len = 0;
    char byte;
    for (;;) {
        if (!*left)
            return tar_bad(reader, "a pax header is damaged");
        if (!pump_read(reader->pump, &byte, 1))
            return tar_cut(reader);
        --*left;
        if (byte == end)
            break;
        if (len < room - 1)
            text[len++] = byte;
    }
    text[len] = 0;
    return true;
}

static unsigned find_key(const char *name)
{
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++)
        if (strcmp(KEYS[i].name, name) == 0)
            return KEYS[i].key;
    return 0;
}

static bool read_record(struct tar_reader *reader, uint64_t *left, struct tar_extra *extra)
{
    char text[NUMBER_MAX], newline;
    int64_t len;
    uint64_t before = *left;
    if (!read_until(reader, ' ', text, sizeof text, left))
        return false;
    if (!parse_number(text, &len) || (uint64_t)len > before || (uint64_t)len <= before - *left + 1)
        return tar_bad(reader, "a pax header is damaged");
    uint64_t rest = (uint64_t)len - (before - *left) - 1; /* key, =, value */
    *left -= rest + 1;
    if (!read_until(reader, '=', text, KEY_MAX, &rest) || !read_value(reader, find_key(text), rest, extra))
        return false;
    if (!pump_read(reader->pump, &newline, 1))
        return tar_cut(reader);
    return newline == '\n' || tar_bad(reader, "a pax header is damaged");
}

bool tar_read_pax(struct tar_reader *reader, int64_t size, struct tar_extra *extra)
{
    uint64_t left = (uint64_t)size;
    while (left)
        if (!read_record(reader, &left, extra))
            return false;
    return pump_skip(reader->pump, tar_padding((uint64_t)size)) || tar_cut(reader);
}
