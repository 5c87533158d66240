/* Parses /firkin.conf and identities in place: one statement a line, words parted by one space, other bytes as %XX. */
#include "config.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "text.h"

enum { MAX_WORDS = 6, EITHER = FORM_BOOT | FORM_IDENTITY };

static const unsigned long MAX_SECONDS = 1UL << 33; /* what every kernel takes as a time: until 2242 */

/* Fills `config` from the words after the key. Returns NULL, or what is wrong. */
typedef const char *statement_fn(struct config *config, const struct word *words, size_t count);

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

static const char *set_clock(struct config *config, const struct word *words, size_t count)
{
    unsigned long seconds, nanoseconds;
    (void)count;
    if (!parse_number(words[0].text, 10, MAX_SECONDS, &seconds) || !parse_number(words[1].text, 10, 999999999, &nanoseconds))
        return "not a time";
    config->clock = (struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)nanoseconds};
    return NULL;
}

static const char *add_mac(struct config *config, const struct word *words, size_t count)
{
    (void)count;
    if (config->mac_count == MAX_INTERFACES)
        return "too many MAC addresses";
    struct mac_change *change = &config->macs[config->mac_count++];
    change->from_text = words[0].text;
    return parse_mac(words[0].text, change->from) && parse_mac(words[1].text, change->to) ? NULL : "not a MAC address";
}

static const char *set_boot_id(struct config *config, const struct word *words, size_t count)
{
    (void)count;
    config->boot_id = words[0].text;
    return parse_uuid(words[0].text) ? NULL : "not a UUID";
}

static const char *add_hangup(struct config *config, const struct word *words, size_t count)
{
    (void)count;
    if (config->hangup_count == MAX_HANGUPS)
        return "too many hang-ups";
    config->hangups[config->hangup_count++] = words[0].text;
    return words[0].text[0] == '/' ? NULL : "not an absolute path";
}

struct statement {
    const char *key;
    unsigned char forms; /* where it is allowed */
    unsigned char least, most;
    signed char binary; /* the word that may hold NUL bytes; -1: none */
    statement_fn *apply;
};

static const struct statement STATEMENTS[] = {
    {"firkin", EITHER, 1, 1, -1, set_version},
    {"hostname", EITHER, 1, 1, -1, set_hostname},
    {"root", FORM_BOOT, 2, 2, -1, set_root},
    {"layer", FORM_BOOT, 2, 2, -1, set_layer},
    {"interface", EITHER, 2, 3, -1, add_interface},
    {"file", EITHER, 5, 5, 4, add_file},
    {"init", FORM_BOOT, 1, 1, -1, set_init},
    {"arg", FORM_BOOT, 1, 1, -1, add_arg},
    {"env", FORM_BOOT, 1, 1, -1, add_env},
    {"workdir", FORM_BOOT, 1, 1, -1, set_workdir},
    {"user", FORM_BOOT, 1, 1, -1, set_user},
    {"seed", EITHER, 1, 1, 0, set_seed},
    {"clock", FORM_IDENTITY, 2, 2, -1, set_clock},
    {"mac", FORM_IDENTITY, 2, 2, -1, add_mac},
    {"bootid", FORM_IDENTITY, 1, 1, -1, set_boot_id},
    {"hangup", FORM_IDENTITY, 1, 1, -1, add_hangup},
};

static const char *unquote_all(const struct statement *statement, struct word *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!word_unquote(&words[i]))
            return "% is not followed by two hexadecimal digits";
        if ((int)i != statement->binary && memchr(words[i].text, 0, words[i].len))
            return "a NUL byte where text belongs";
    }
    return NULL;
}

static const char *apply_line(struct config *config, enum form form, char *line, size_t len)
{
    struct word words[MAX_WORDS];
    size_t count = words_split(line, len, words, MAX_WORDS) - 1;
    for (size_t i = 0; i < sizeof STATEMENTS / sizeof *STATEMENTS; i++) {
        const struct statement *statement = &STATEMENTS[i];
        if (!(statement->forms & form) || strcmp(statement->key, words[0].text) != 0)
            continue;
        if (count < statement->least || count > statement->most)
            return "wrong number of words";
        const char *fault = unquote_all(statement, words + 1, count);
        return fault ? fault : statement->apply(config, words + 1, count);
    }
    return "unknown key";
}

static int config_fault(enum form form, size_t line_number, const char *fault)
{
    struct text where = {0};
    text_number(&where, line_number);
    LOG(form == FORM_BOOT ? "/firkin.conf" : "identity", " line ", where.data, ": ", fault);
    return -1;
}

int config_parse(struct config *config, enum form form, char *data, size_t len)
{
    size_t line_number = 1;
    for (char *end = data + len; data < end; line_number++) {
        char *newline = memchr(data, '\n', (size_t)(end - data));
        if (!newline)
            return config_fault(form, line_number, "no newline at the end");
        const char *fault = apply_line(config, form, data, (size_t)(newline - data));
        if (line_number == 1 && !fault && strcmp(data, "firkin") != 0)
            fault = "the first line is not `firkin 1`";
        if (fault)
            return config_fault(form, line_number, fault);
        data = newline + 1;
    }
    if (line_number == 1)
        return config_fault(form, line_number, "nothing there");
    if (form == FORM_BOOT && !config->root_device)
        return config_fault(form, line_number, "no root device");
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
        return config_fault(FORM_BOOT, 0, "4 MiB or larger");
    return got < 0 ? -1 : config_parse(config, FORM_BOOT, data, len);
}
