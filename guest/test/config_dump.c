/* For tests on the host: parses a configuration (`config-dump`) or an identity (`config-dump identity`) from stdin and
 * says in hexadecimal what it understood. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"

static void dump(const char *what, const char *data, size_t len)
{
    printf("%s ", what);
    for (size_t i = 0; i < len; i++)
        printf("%02x", (unsigned char)data[i]);
    putchar('\n');
}

static void dump_text(const char *what, const char *text)
{
    if (text)
        dump(what, text, strlen(text));
}

static void dump_config(const struct config *config)
{
    dump_text("hostname", config->hostname);
    dump_text("root", config->root_device);
    dump_text("layer", config->layer_device);
    dump_text("init", config->init);
    dump_text("workdir", config->workdir);
    dump_text("user", config->user);
    for (size_t i = 0; i < config->arg_count; i++)
        dump_text("arg", config->argv[i]);
    for (size_t i = 0; i < config->env_count; i++)
        dump_text("env", config->env[i]);
    for (size_t i = 0; i < config->interface_count; i++) {
        dump("mac", (const char *)config->interfaces[i].mac, 6);
        dump("address", (const char *)config->interfaces[i].address.bytes, 16);
        printf("prefix %d\n", config->interfaces[i].address.prefix_len);
        dump("gateway", (const char *)config->interfaces[i].gateway.bytes, 16);
    }
    for (size_t i = 0; i < config->file_count; i++) {
        const struct file *file = &config->files[i];
        printf("file %o %u %u\n", (unsigned)file->mode, (unsigned)file->uid, (unsigned)file->gid);
        dump_text("path", file->path);
        dump("data", file->data, file->len);
    }
    dump("seed", config->seed ? config->seed : "", config->seed_len);
    dump_text("bootid", config->boot_id);
    printf("clock %lld %ld\n", (long long)config->clock.tv_sec, config->clock.tv_nsec);
    for (size_t i = 0; i < config->mac_count; i++) {
        dump("from", (const char *)config->macs[i].from, MAC_LEN);
        dump("to", (const char *)config->macs[i].to, MAC_LEN);
    }
    for (size_t i = 0; i < config->hangup_count; i++)
        dump_text("hangup", config->hangups[i]);
}

int main(int argc, char **argv)
{
    enum form form = argc == 2 && strcmp(argv[1], "identity") == 0 ? FORM_IDENTITY : FORM_BOOT;
    static struct config config;
    static char input[CONFIG_MAX_BYTES];
    size_t len = fread(input, 1, sizeof input, stdin);
    char *exact = malloc(len ? len : 1); /* as long as what there is: a read beyond it is caught */
    memcpy(exact, input, len);
    int result = config_parse(&config, form, exact, len);
    if (result == 0)
        dump_config(&config);
    free(exact);
    return result == 0 ? 0 : 1;
}
