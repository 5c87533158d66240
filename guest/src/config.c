/* Parses /firkin.conf in place: one statement a line, words parted by one space, other bytes as %XX. */
#include "config.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "text.h"

enum { MAX_WORDS = 6 };

struct word {
    char *text; /* ends with NUL, and may hold NULs before */
    size_t len;
};

/* Fills `config` from the words after the key. Returns NULL, or what is wrong. */
typedef const char *statement_fn(struct config *config, const struct word *words, size_t count);

static bool parse_number(const char *text, unsigned base, unsigned long max, unsigned long *value)
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

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static bool parse_mac(const char *text, unsigned char mac[6])
{
    if (strlen(text) != 17)
        return false;
    for (int i = 0; i < 6; i++, text += 3) {
        int high = hex_digit(text[0]), low = hex_digit(text[1]);
        if (high < 0 || low < 0 || text[2] != (i < 5 ? ':' : 0))
            return false;
        mac[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

static bool parse_address(const char *text, struct address *address)
{
    int family = strchr(text, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(family, text, address->bytes) != 1)
        return false;
    address->family = family;
    return true;
}

static bool parse_prefixed(char *text, struct address *address)
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

static const char *set_version(struct config *config, const struct word *words, size_t count)
{
    (void)config, (void)count;
    return strcmp(words[0].text, "1") == 0 ? NULL : "this firkin-init reads format 1";
}

static const char *set_hostname(struct config *config, const struct word *words, size_t count)
{
    (void)count;
    config->hostname = words[0].text;
    return words[0].len >= 1 && words[0].len <= 64 ? NULL : "a host name has 1 to 64 bytes";
}

static const char *set_root(struct config *config, const struct word *words, size_t count)
{
    (void)count;
    config->root_device = words[0].text;
    config->root_type = words[1].text;
    return NULL;
}

static const char *set_layer(struct config *config, const struct word *words, size_t count)
{
    (void)count;
    config->layer_device = words[0].text;
    config->layer_type = words[1].text;
    return NULL;
}

static const char *add_interface(struct config *config, const struct word *words, size_t count)
{
    if (config->interface_count == MAX_INTERFACES)
        return "too many interfaces";
    struct interface *interface = &config->interfaces[config->interface_count++];
    interface->mac_text = words[0].text;
    if (!parse_mac(words[0].text, interface->mac))
        return "not a MAC address";
    if (!parse_prefixed(words[1].text, &interface->address))
        return "not an address with its prefix length";
    if (count == 3 && !parse_address(words[2].text, &interface->gateway))
        return "not a gateway address";
    if (count == 3 && interface->gateway.family != interface->address.family)
        return "the gateway is of another family than the address";
    return NULL;
}

static const char *add_file(struct config *config, const struct word *words, size_t count)
{
    unsigned long mode, uid, gid;
    (void)count;
    if (config->file_count == MAX_FILES)
        return "too many files";
    if (!parse_number(words[0].text, 8, 07777, &mode))
        return "not an octal mode";
    if (!parse_number(words[1].text, 10, UINT_MAX - 1, &uid) || !parse_number(words[2].text, 10, UINT_MAX - 1, &gid))
        return "not a numeric owner";
    if (words[3].text[0] != '/')
        return "not an absolute path";
    config->files[config->file_count++] = (struct file){
        .mode = (mode_t)mode, .uid = (uid_t)uid, .gid = (gid_t)gid,
        .path = words[3].text, .data = words[4].text, .len = words[4].len,
    };
    return NULL;
}

static const char *set_init(struct config *config, const struct word *words, size_t count)
{
    (void)count;
    config->init = words[0].text;
    return words[0].text[0] == '/' ? NULL : "not an absolute path";
}

static const char *add_arg(struct config *config, const struct word *words, size_t count)
{
    (void)count;
    if (config->arg_count == MAX_ARGS)
        return "too many arguments";
    config->argv[config->arg_count++] = words[0].text;
    return NULL;
}

static const char *add_env(struct config *config, const struct word *words, size_t count)
{
    (void)count;
    if (config->env_count == MAX_ENV)
        return "too many variables";
    config->env[config->env_count++] = words[0].text;
    return strchr(words[0].text, '=') > words[0].text ? NULL : "not NAME=VALUE";
}

static const char *set_workdir(struct config *config, const struct word *words, size_t count)
{
    (void)count;
    config->workdir = words[0].text;
    return words[0].text[0] == '/' ? NULL : "not an absolute path";
}

static const char *set_user(struct config *config, const struct word *words, size_t count)
{
    (void)count;
    config->user = words[0].text;
    return NULL;
}

static const char *set_seed(struct config *config, const struct word *words, size_t count)
{
    (void)count;
    config->seed = words[0].text;
    config->seed_len = words[0].len;
    return words[0].len <= 512 ? NULL : "a seed has 512 bytes at most";
}

struct statement {
    const char *key;
    unsigned char least, most;
    signed char binary; /* the word that may hold NUL bytes; -1: none */
    statement_fn *apply;
};

static const struct statement STATEMENTS[] = {
    {"firkin", 1, 1, -1, set_version},
    {"hostname", 1, 1, -1, set_hostname},
    {"root", 2, 2, -1, set_root},
    {"layer", 2, 2, -1, set_layer},
    {"interface", 2, 3, -1, add_interface},
    {"file", 5, 5, 4, add_file},
    {"init", 1, 1, -1, set_init},
    {"arg", 1, 1, -1, add_arg},
    {"env", 1, 1, -1, add_env},
    {"workdir", 1, 1, -1, set_workdir},
    {"user", 1, 1, -1, set_user},
    {"seed", 1, 1, 0, set_seed},
};

/* Undo %XX in place; the result is never longer than the source. */
static bool unquote(struct word *word)
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

/* Part a line at its spaces; the byte at `line[len]` is a newline that may be overwritten. */
static size_t split(char *line, size_t len, struct word *words, size_t max)
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

static const char *unquote_all(const struct statement *statement, struct word *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!unquote(&words[i]))
            return "% is not followed by two hexadecimal digits";
        if ((int)i != statement->binary && memchr(words[i].text, 0, words[i].len))
            return "a NUL byte where text belongs";
    }
    return NULL;
}

static const char *apply_line(struct config *config, char *line, size_t len)
{
    struct word words[MAX_WORDS];
    size_t count = split(line, len, words, MAX_WORDS) - 1;
    for (size_t i = 0; i < sizeof STATEMENTS / sizeof *STATEMENTS; i++) {
        const struct statement *statement = &STATEMENTS[i];
        if (strcmp(statement->key, words[0].text) != 0)
            continue;
        if (count < statement->least || count > statement->most)
            return "wrong number of words";
        const char *fault = unquote_all(statement, words + 1, count);
        return fault ? fault : statement->apply(config, words + 1, count);
    }
    return "unknown key";
}

static int config_fault(size_t line_number, const char *fault)
{
    struct text where = {0};
    text_number(&where, line_number);
    LOG("/firkin.conf line ", where.data, ": ", fault);
    return -1;
}

int config_parse(struct config *config, char *data, size_t len)
{
    size_t line_number = 1;
    for (char *end = data + len; data < end; line_number++) {
        char *newline = memchr(data, '\n', (size_t)(end - data));
        if (!newline)
            return config_fault(line_number, "no newline at the end");
        const char *fault = apply_line(config, data, (size_t)(newline - data));
        if (line_number == 1 && !fault && strcmp(data, "firkin") != 0)
            fault = "the first line is not `firkin 1`";
        if (fault)
            return config_fault(line_number, fault);
        data = newline + 1;
    }
    if (!config->root_device)
        return config_fault(line_number, "no root device");
    return 0;
}

int config_load(struct config *config, const char *path)
{
    /* Lives as long as the machine. Not from malloc, whose first use costs milliseconds under emulation. */
    static char data[CONFIG_MAX_BYTES];
    size_t len = 0;
    ssize_t got = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return log_errno("configuration", path);
    while (len < sizeof data && (got = read(fd, data + len, sizeof data - len)) > 0)
        len += (size_t)got;
    if (got < 0)
        log_errno("configuration", path);
    close(fd);
    if (len == sizeof data)
        return config_fault(0, "4 MiB or larger");
    return got < 0 ? -1 : config_parse(config, data, len);
}
