/* From a stream's descriptors to the host, within the credit that the host gave. */
#ifndef FIRKIN_OUTPUT_H
#define FIRKIN_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loop.h"

struct stream;

struct output {
    uint32_t credit;       /* bytes that the host still takes */
    struct watch watch[2]; /* stdout, the terminal or the port; stderr */
    size_t left[2];        /* bytes to come from a pipe after the exit */
    bool grown[2];         /* the pipe was made larger */
};

/* Read from these from now on; -1 where there is none. */
void output_open(struct stream *stream, int out, int err);

/* Go on as credit, room and what was kept allow. */
void output_resume(struct stream *stream);

/* The host takes so much more. False when that is more than can be counted. */
bool output_grant(struct stream *stream, uint32_t more);

/* The program has exited: what its pipes hold now is its last word, though others may hold them open for ever. */
void output_count_rest(struct stream *stream);

/* Whether all was read and sent. */
bool output_done(const struct stream *stream);

void output_close(struct stream *stream);

#endif
