/* Packs and unpacks the wire protocol. All numbers are little-endian; every length is checked against what is there. */
#include "frames.h"

#include <string.h>

static void put_u32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

static uint32_t get_u32(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

bool frame_unpack(struct frame *frame, const unsigned char header[FRAME_HEADER])
{
    frame->type = header[2];
    frame->flags = header[3];
    frame->stream = get_u32(header + 4);
    frame->len = get_u32(header + 8);
    return (header[0] | header[1] << 8) == FRAME_MAGIC && frame->len <= FRAME_MAX_PAYLOAD;
}

void frame_pack(unsigned char header[FRAME_HEADER], const struct frame *frame)
{
    header[0] = FRAME_MAGIC & 0xff;
    header[1] = FRAME_MAGIC >> 8;
    header[2] = frame->type;
    header[3] = frame->flags;
    put_u32(header + 4, frame->stream);
    put_u32(header + 8, frame->len);
}

struct reader reader_of(const struct frame *frame)
{
    return (struct reader){.at = frame->payload, .end = frame->payload + frame->len};
}

static unsigned char *take(struct reader *reader, size_t len)
{
    unsigned char *at = reader->at;
    if (reader->bad || (size_t)(reader->end - at) < len) {
        reader->bad = true;
        return NULL;
    }
    reader->at += len;
    return at;
}

uint16_t read_u16(struct reader *reader)
{
    const unsigned char *at = take(reader, 2);
    return at ? (uint16_t)(at[0] | at[1] << 8) : 0;
}

uint32_t read_u32(struct reader *reader)
{
    const unsigned char *at = take(reader, 4);
    return at ? get_u32(at) : 0;
}

unsigned char *read_blob(struct reader *reader, uint32_t *len)
{
    *len = read_u32(reader);
    unsigned char *blob = take(reader, *len);
    if (!blob)
        *len = 0;
    return blob;
}

const char *read_string(struct reader *reader)
{
    uint32_t len;
    unsigned char *blob = read_blob(reader, &len);
    if (!blob || len == 0)
        return NULL;
    if (memchr(blob, 0, len) == blob + len - 1)
        return (const char *)blob;
    reader->bad = true;
    return NULL;
}

void read_strings(struct reader *reader, const char **strings, size_t max)
{
    uint32_t len;
    size_t count = 0;
    unsigned char *blob = read_blob(reader, &len), *end = len ? blob + len : blob;
    if (len && end[-1] != 0)
        reader->bad = true;
    while (!reader->bad && blob < end) {
        if (count == max) {
            reader->bad = true;
            break;
        }
        strings[count++] = (const char *)blob;
        blob = (unsigned char *)memchr(blob, 0, (size_t)(end - blob)) + 1;
    }
    strings[count] = NULL;
}

static unsigned char *grow(struct writer *writer, size_t len)
{
    if (writer->bad || sizeof writer->data - writer->len < len) {
        writer->bad = true;
        return NULL;
    }
    unsigned char *at = writer->data + writer->len;
    writer->len += len;
    return at;
}

void write_u16(struct writer *writer, uint16_t value)
{
    unsigned char *at = grow(writer, 2);
    if (at) {
        at[0] = (unsigned char)value;
        at[1] = (unsigned char)(value >> 8);
    }
}

void write_u32(struct writer *writer, uint32_t value)
{
    unsigned char *at = grow(writer, 4);
    if (at)
        put_u32(at, value);
}

void write_blob(struct writer *writer, const void *data, size_t len)
{
    write_u32(writer, (uint32_t)len);
    unsigned char *at = grow(writer, len);
    if (at && len)
        memcpy(at, data, len);
}
