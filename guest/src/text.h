/* Short texts in a fixed buffer: what does not fit is cut, never overrun. */
#ifndef FIRKIN_TEXT_H
#define FIRKIN_TEXT_H

#include <stddef.h>

struct text {
    size_t len;
    char data[1024];
};

void text_add(struct text *text, const char *part);
void text_number(struct text *text, unsigned long value);

#endif
