/* For tests on the host: `renew-run BEFORE AFTER` takes on the identities on stdin, between two shell scripts. It does so
 * in namespaces of its own, so that the host keeps its name, boot id and network; the clock, which has none, is refused. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "config.h"
#include "log.h"
#include "renew.h"
#include "text.h"

static char input[CONFIG_MAX_BYTES];

static int part_from_host(void)
{
    if (unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWNET) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return log_errno("unshare", NULL);
    return mount("tmpfs", "/run", "tmpfs", 0, NULL) < 0 ? log_errno("mount", "/run") : 0;
}

/* Once for each identity: they are parted by an empty line. */
static int take_on(char *text, size_t len)
{
    static struct config config;
    config = (struct config){0};
    if (config_parse(&config, FORM_IDENTITY, text, len) < 0 || config.clock.tv_sec)
        return -1;
    return renew(&config);
}

int main(int argc, char **argv)
{
    struct text fault = {0};
    char *end = input + fread(input, 1, sizeof input - 1, stdin);
    if (argc != 3 || part_from_host() < 0 || system(argv[1]) != 0)
        return 2;
    log_keep(&fault);
    for (char *at = input; at < end;) {
        char *gap = strstr(at, "\n\n");
        size_t len = gap ? (size_t)(gap + 1 - at) : (size_t)(end - at);
        if (take_on(at, len) < 0)
            break;
        at += len + 1;
    }
    printf("%s\n", fault.data);
    fflush(stdout);
    return system(argv[2]) == 0 ? 0 : 2;
}
