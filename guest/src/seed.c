/* Entropy from the host: without it a fresh machine's first keys would wait, or be guessable. */
#include "seed.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "log.h"

enum { MAX_SEED = 512 };

static int credit(int fd, const struct config *config)
{
    _Alignas(struct rand_pool_info) char space[sizeof(struct rand_pool_info) + MAX_SEED];
    struct rand_pool_info *pool = (struct rand_pool_info *)space;
    pool->entropy_count = (int)config->seed_len * 8;
    pool->buf_size = (int)config->seed_len;
    memcpy(pool->buf, config->seed, config->seed_len);
    return ioctl(fd, RNDADDENTROPY, pool);
}

static int give(const struct config *config, bool renew)
{
    if (!config->seed_len)
        return 0;
    int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
    int result = fd < 0 ? -1 : credit(fd, config);
    if (result == 0 && renew)
        result = ioctl(fd, RNDRESEEDCRNG);
    if (result < 0)
        log_errno("seed", NULL);
    if (fd >= 0)
        close(fd);
    return result;
}

int seed_add(const struct config *config)
{
    return give(config, false);
}

int seed_renew(const struct config *config)
{
    return give(config, true);
}
