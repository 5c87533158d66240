/* For tests on the host: parses a configuration from stdin and says in hexadecimal what it understood. */
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
}

int main(void)
{
    static struct config config;
    static char input[CONFIG_MAX_BYTES];
    size_t len = fread(input, 1, sizeof input, stdin);
    char *exact = malloc(len ? len : 1); /* as long as what there is: a read beyond it is caught */
    memcpy(exact, input, len);
    int result = config_parse(&config, FORM_BOOT, exact, len);
    if (result == 0)
        dump_config(&config);
    free(exact);
    return result == 0 ? 0 : 1;
}
