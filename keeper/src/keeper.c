/* Holds the far end of a machine's serial console: appends what comes on stdin, the engine's output, to the log in the
   working folder, and ends when the engine has ended and everything it said is written. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "confine.h"
#include "log.h"

enum {
    CHUNK = 1 << 16,
    /* A serial port hands over single characters. The first is written at once; what follows is gathered, since
       waking for each would cost more than the guest does. */
    GATHER_MS = 1,
    EXIT_USAGE = 2,
};

static const char usage[] =
    "usage: firkin-keeper --machine ID --engine PIDFD --limit BYTES  (output on stdin, log in the working folder)\n";

struct options {
    long engine;     /* descriptor of the engine's process */
    long long limit; /* bytes of one log file */
};

static bool parse(int argc, char **argv, struct options *options)
{
    /* --machine only tells a person, and whoever has to end us, whose console this is. */
    if (argc != 7 || strcmp(argv[1], "--machine") || strcmp(argv[3], "--engine") || strcmp(argv[5], "--limit"))
        return false;
    options->engine = strtol(argv[4], NULL, 10);
    options->limit = strtoll(argv[6], NULL, 10);
    return options->engine > STDERR_FILENO && options->limit >= MIN_LIMIT;
}

/* Copy one piece: 1 if there was one, 0 if there is nothing now, -1 if nothing can come any more. */
static int copy(struct log *log)
{
    static char piece[CHUNK];
    ssize_t size = read(STDIN_FILENO, piece, sizeof piece);
    if (size > 0)
        log_add(log, piece, (size_t)size);
    return size > 0 ? 1 : size < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static void keep(struct log *log, int engine)
{
    struct pollfd ready[] = {{engine, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    while (!ready[0].revents) {
        if (poll(ready, 2, -1) < 0)
            continue;
        if (ready[1].revents && copy(log) < 0)
            ready[1].fd = -1; /* all writers are gone: wait for the engine's end alone */
        if (!ready[0].revents)
            poll(ready, 1, GATHER_MS);
    }
    while (copy(log) > 0)
        continue;
}

int main(int argc, char **argv)
{
    struct options options;
    struct log log;
    if (!parse(argc, argv, &options))
        return write(STDERR_FILENO, usage, sizeof usage - 1) < 0 ? EXIT_FAILURE : EXIT_USAGE;
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    confine((uint64_t)options.limit);
    log_open(&log, (uint64_t)options.limit);
    keep(&log, (int)options.engine);
    return EXIT_SUCCESS;
}
