/* Takes words apart: numbers, MAC addresses, IP addresses. */
#include "words.h"

#include <arpa/inet.h>
#include <string.h>

size_t words_split(char *line, size_t len, struct word *words, size_t max)
{
    size_t count = 0;
    char *end = line + len;
    for (;;) {
        char *space = memchr(line, ' ', (size_t)(end - line));
        char *stop = space ? space : end;
        if (count == max)
            return max + 1;
        words[count++] = (struct word){line, (size_t)(stop - line)};
        *stop = 0;
        if (!space)
            return count;
        line = space + 1;
    }
}

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

bool word_unquote(struct word *word)
{
    char *out = word->text;
    for (const char *in = word->text, *end = in + word->len; in < end; in++) {
        if (*in != '%') {
            *out++ = *in;
            continue;
        }
        if (end - in < 3 || hex_digit(in[1]) < 0 || hex_digit(in[2]) < 0)
            return false;
        *out++ = (char)(hex_digit(in[1]) << 4 | hex_digit(in[2]));
        in += 2;
    }
    *out = 0;
    word->len = (size_t)(out - word->text);
    return true;
}

bool parse_number(const char *text, unsigned base, unsigned long max, unsigned long *value)
{
    unsigned long sum = 0;
    if (!*text)
        return false;
    for (; *text; text++) {
        unsigned digit = (unsigned char)*text - '0';
        if (digit >= base || sum > (max - digit) / base)
            return false;
        sum = sum * base + digit;
    }
    *value = sum;
    return true;
}

bool parse_mac(const char *text, unsigned char mac[MAC_LEN])
{
    if (strlen(text) != 3 * MAC_LEN - 1)
        return false;
    for (int i = 0; i < MAC_LEN; i++, text += 3) {
        int high = hex_digit(text[0]), low = hex_digit(text[1]);
        if (high < 0 || low < 0 || text[2] != (i < MAC_LEN - 1 ? ':' : 0))
            return false;
        mac[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

/* As the kernel writes it: eight, four, four, four and twelve digits. */
bool parse_uuid(const char *text)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    if (strlen(text) != sizeof form - 1)
        return false;
    for (size_t i = 0; i < sizeof form - 1; i++)
        if (form[i] == '-' ? text[i] != '-' : hex_digit(text[i]) < 0)
            return false;
    return true;
}

bool parse_address(const char *text, struct address *address)
{
    int family = strchr(text, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(family, text, address->bytes) != 1)
        return false;
    address->family = family;
    return true;
}

bool parse_prefixed(char *text, struct address *address)
{
    char *slash = strchr(text, '/');
    unsigned long bits;
    if (!slash)
        return false;
    *slash = 0;
    if (!parse_address(text, address))
        return false;
    if (!parse_number(slash + 1, 10, address->family == AF_INET ? 32 : 128, &bits))
        return false;
    address->prefix_len = (unsigned char)bits;
    return true;
}
