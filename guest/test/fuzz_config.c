/* Fuzzer: any bytes as /firkin.conf, and as an identity. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "fuzz.h"
#include "log.h"

static void parse(enum form form, const uint8_t *data, size_t size)
{
    static struct config config;
    char *exact = malloc(size ? size : 1); /* as long as what there is: a read beyond it is caught */
    memcpy(exact, data, size);
    memset(&config, 0, sizeof config);
    config_parse(&config, form, exact, size);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int nowhere = -1;
    if (nowhere < 0)
        log_to(nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC)); /* a line for each fault would be most of the work */
    parse(FORM_BOOT, data, size);
    parse(FORM_IDENTITY, data, size);
    return 0;
}
