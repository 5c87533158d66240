/* From the host to a stream's stdin, and credit back for what was taken. */
#ifndef FIRKIN_INPUT_H
#define FIRKIN_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frames.h"
#include "loop.h"

struct stream;

struct input {
    struct watch watch;
    unsigned char *pending; /* not yet taken, STDIN_WINDOW bytes; NULL while there was no need */
    size_t start, len;
    uint32_t taken; /* bytes taken since credit was last given */
    bool ends;      /* the end comes after what is pending */
    bool grown;     /* the pipe was made larger */
};

/* Write to this from now on; -1 when there is no stdin. */
void input_open(struct stream *stream, int fd);

/* Bytes that the host may send before it hears more. */
uint32_t input_window(const struct stream *stream);

/* STDIN. False when the host sends more than its credit. */
bool input_take(struct stream *stream, const struct frame *frame);

void input_close(struct stream *stream);

#endif
