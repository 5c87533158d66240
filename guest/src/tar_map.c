/* The map of a sparse file: where its data is. Decimal lines before the data, in whole blocks; found by SEEK_DATA. */
#include "tar_map.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static bool read_line(struct tar_reader *reader, int64_t *value, uint64_t *taken)
{
    char byte;
    *value = 0;
    for (int digits = 0;; digits++) {
        if (!pump_read(reader->pump, &byte, 1))
            return tar_cut(reader);
        ++*taken;
        if (byte == '\n' && digits)
            return true;
        if (byte < '0' || byte > '9' || *value > (INT64_MAX - 9) / 10)
            return tar_bad(reader, "the map of a sparse file is damaged");
        *value = *value * 10 + (byte - '0');
    }
}

/* Runs come in order, do not overlap and end within the file. */
static bool is_run(const struct tar_run *run, int64_t last, int64_t real_size)
{
    return run->offset >= last && run->offset <= real_size && run->len <= real_size - run->offset;
}

long tar_read_map(struct tar_reader *reader, struct tar_member *member, struct tar_run runs[TAR_MAP_MAX])
{
    int64_t count, last = 0, sum = 0;
    uint64_t taken = 0;
    bool good = read_line(reader, &count, &taken);
    if (good && count > TAR_MAP_MAX)
        good = tar_bad(reader, "the map of a sparse file is too long");
    for (int64_t i = 0; good && i < count; i++) {
        good = read_line(reader, &runs[i].offset, &taken) && read_line(reader, &runs[i].len, &taken);
        if (good && !is_run(&runs[i], last, member->real_size))
            good = tar_bad(reader, "the map of a sparse file is damaged");
        last = runs[i].offset + runs[i].len;
        sum += runs[i].len;
    }
    if (good && !pump_skip(reader->pump, tar_padding(taken)))
        good = tar_cut(reader);
    member->size -= (int64_t)(taken + tar_padding(taken));
    if (good && member->size != sum)
        good = tar_bad(reader, "the map of a sparse file does not fit its data");
    return good ? (long)count : -1;
}

/* When there are too many, the smallest holes are written as zeros: twice the size of hole, until half is free. */
static long drop_holes(struct tar_run *runs, long count, int64_t *smallest)
{
    for (; count > TAR_MAP_MAX / 2; *smallest *= 2) {
        long kept = 0;
        for (long i = 1; i < count; i++) {
            int64_t end = runs[kept].offset + runs[kept].len;
            if (runs[i].offset - end < *smallest)
                runs[kept].len = runs[i].offset + runs[i].len - runs[kept].offset;
            else
                runs[++kept] = runs[i];
        }
        count = kept + 1;
    }
    return count;
}

long tar_find_map(int fd, int64_t size, struct tar_run runs[TAR_MAP_MAX])
{
    int64_t smallest = 2 * TAR_BLOCK;
    long count = 0;
    for (off_t hole = 0, data; hole < size; count++) {
        data = lseek(fd, hole, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break; /* nothing but a hole is left */
        hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
        if (hole < 0 || hole <= data)
            return -1;
        if (data >= size)
            break;
        hole = hole < size ? hole : size;
        if (count == TAR_MAP_MAX - 1)
            count = drop_holes(runs, count, &smallest);
        runs[count] = (struct tar_run){data, hole - data};
    }
    int64_t end = count ? runs[count - 1].offset + runs[count - 1].len : 0;
    if (end < size)
        runs[count++] = (struct tar_run){size, 0}; /* as GNU's tar says where a file ends in a hole */
    return count;
}

/* Write `value` and a newline at the end of a buffer. */
static const char *line_of(int64_t value, char text[24])
{
    char *at = text + 23;
    *at = 0;
    *--at = '\n';
    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    return at;
}

static uint64_t each_line(const struct tar_run *runs, long count, bool writes)
{
    uint64_t len = 0;
    for (long i = -1; i < count; i++)
        for (int half = i < 0 ? 1 : 0; half < 2; half++) {
            char text[24];
            const char *line = line_of(i < 0 ? count : half ? runs[i].len : runs[i].offset, text);
            len += strlen(line);
            if (writes)
                out_add(line, strlen(line));
        }
    if (writes)
        out_zeros(tar_padding(len));
    return len + tar_padding(len);
}

int64_t tar_map_size(const struct tar_run *runs, long count)
{
    return (int64_t)each_line(runs, count, false);
}

void tar_write_map(const struct tar_run *runs, long count)
{
    each_line(runs, count, true);
}
