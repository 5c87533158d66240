/* Short texts in a fixed buffer; stands in for printf, which would cost more than all of its users. */
#include "text.h"

#include <string.h>

void text_add(struct text *text, const char *part)
{
    size_t room = sizeof text->data - 1 - text->len;
    size_t len = strnlen(part, room);
    memcpy(text->data + text->len, part, len);
    text->len += len;
    text->data[text->len] = 0;
}

void text_number(struct text *text, unsigned long value)
{
    char digits[24];
    char *at = digits + sizeof digits - 1;
    *at = 0;
    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    text_add(text, at);
}
