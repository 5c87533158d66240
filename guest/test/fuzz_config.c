/* Fuzzer: any bytes as /firkin.conf. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "fuzz.h"
#include "log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config;
    static int nowhere = -1;
    if (nowhere < 0)
        log_to(nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC)); /* a line for each fault would be most of the work */
    char *exact = malloc(size ? size : 1); /* as long as what there is: a read beyond it is caught */
    memcpy(exact, data, size);
    memset(&config, 0, sizeof config);
    config_parse(&config, exact, size);
    free(exact);
    return 0;
}
