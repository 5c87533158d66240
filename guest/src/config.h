/* What this machine is to be: /firkin.conf at boot, the frame IDENTITY later. The format is in docs/agent-protocol.md. */
#ifndef FIRKIN_CONFIG_H
#define FIRKIN_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#include "words.h"

enum {
    CONFIG_MAX_BYTES = 4 << 20,
    MAX_ARGS = 256,
    MAX_ENV = 256,
    MAX_FILES = 128,
    MAX_INTERFACES = 8,
    MAX_HANGUPS = 8,
};

/* Which statements are allowed. */
enum form { FORM_BOOT = 1, FORM_IDENTITY = 2 };

struct interface {
    unsigned char mac[MAC_LEN];
    struct address address;
    struct address gateway;
    const char *mac_text;
};

struct mac_change {
    unsigned char from[MAC_LEN], to[MAC_LEN];
    const char *from_text;
};

struct file {
    mode_t mode;
    uid_t uid;
    gid_t gid;
    const char *path;
    const char *data;
    size_t len;
};

/* Strings point into the text that was parsed; what was not given is NULL or 0. */
struct config {
    const char *hostname;
    const char *root_device;
    const char *root_type;
    const char *layer_device; /* NULL: in memory */
    const char *layer_type;
    const char *init; /* NULL: firkin-init stays */
    const char *workdir;
    const char *user;
    const char *argv[MAX_ARGS + 1];
    const char *env[MAX_ENV + 1];
    struct interface interfaces[MAX_INTERFACES];
    struct file files[MAX_FILES];
    const char *seed;
    size_t seed_len;
    size_t arg_count;
    size_t env_count;
    size_t interface_count;
    size_t file_count;
    /* of an identity only */
    struct timespec clock; /* 0: not given */
    const char *boot_id;
    struct mac_change macs[MAX_INTERFACES];
    const char *hangups[MAX_HANGUPS];
    size_t mac_count;
    size_t hangup_count;
};

/* Read and parse; -1 after one line on the console that names the fault. */
int config_load(struct config *config, const char *path);

/* Parse `len` bytes in place; they must outlive `config`. -1 after a line that names the fault. */
int config_parse(struct config *config, enum form form, char *data, size_t len);

#endif
