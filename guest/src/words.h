/* The words of one statement, and what they can stand for. */
#ifndef FIRKIN_WORDS_H
#define FIRKIN_WORDS_H

#include <stdbool.h>
#include <stddef.h>

enum { MAC_LEN = 6 };

struct word {
    char *text; /* ends with NUL, and may hold NULs before */
    size_t len;
};

struct address {
    int family; /* AF_INET, AF_INET6, or 0 for none */
    unsigned char bytes[16];
    unsigned char prefix_len;
};

/* Part a line at its spaces; `line[len]` is overwritten. More than `max` words: max + 1. */
size_t words_split(char *line, size_t len, struct word *words, size_t max);

/* Undo %XX in place; the result is never longer than the source. */
bool word_unquote(struct word *word);

/* Each is false when the text is no such thing. */
bool parse_number(const char *text, unsigned base, unsigned long max, unsigned long *value);
bool parse_mac(const char *text, unsigned char mac[MAC_LEN]);
bool parse_uuid(const char *text);
bool parse_address(const char *text, struct address *address);
bool parse_prefixed(char *text, struct address *address);

#endif
