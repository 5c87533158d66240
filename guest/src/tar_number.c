/* Numbers of a header: octal text, or two's complement in base 256 for what octal cannot hold. */
#include <stddef.h>
#include <string.h>

#include "tar.h"

static bool parse_binary(const unsigned char *field, size_t len, int64_t *value)
{
    bool negative = field[0] & 0x40;
    uint64_t bits = negative ? ~UINT64_C(0) : 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = i ? field[i] : (unsigned char)((field[0] & 0x3f) | (negative ? 0xc0 : 0));
        if (i + 8 < len && byte != (negative ? 0xff : 0))
            return false;
        bits = bits << 8 | byte;
    }
    *value = (int64_t)bits;
    return (*value < 0) == negative;
}

bool tar_parse_number(const char *field, size_t len, int64_t *value)
{
    size_t at = 0;
    uint64_t number = 0;
    if (field[0] & 0x80)
        return parse_binary((const unsigned char *)field, len, value);
    while (at < len && field[at] == ' ')
        at++;
    for (; at < len && field[at] >= '0' && field[at] <= '7'; at++)
        number = number << 3 | (uint64_t)(field[at] - '0'); /* 12 digits at most: 36 bits */
    *value = (int64_t)number;
    return at == len || field[at] == ' ' || !field[at];
}

void tar_format_number(char *field, size_t len, int64_t value)
{
    bool octal = value >= 0 && (uint64_t)value >> (3 * (len - 1)) == 0;
    uint64_t bits = (uint64_t)value;
    if (octal)
        field[len - 1] = 0;
    for (size_t i = octal ? len - 1 : len; i-- > 0;) {
        field[i] = octal ? (char)('0' + (bits & 7)) : (char)(bits & 0xff);
        bits = octal ? bits >> 3 : (uint64_t)((int64_t)bits >> 8);
    }
    if (!octal)
        field[0] = (char)(value < 0 ? 0xff : 0x80);
}

unsigned tar_checksum(const struct tar_block *block)
{
    const unsigned char *bytes = (const unsigned char *)block;
    unsigned sum = 8 * ' ';
    for (size_t i = 0; i < TAR_BLOCK; i++)
        sum += bytes[i];
    for (size_t i = 0; i < sizeof block->checksum; i++)
        sum -= (unsigned char)block->checksum[i];
    return sum;
}
