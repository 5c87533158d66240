/* The agent: serves the host's connections for as long as the machine lives. */
#ifndef FIRKIN_AGENT_H
#define FIRKIN_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "frames.h"
#include "loop.h"

/* How this machine ends when the host asks. */
enum power { POWER_REFUSED, POWER_OWN_INIT, POWER_IMAGE_INIT };

/* Milliseconds after the kernel's start. */
struct boot_times {
    uint32_t init_ms, root_ms, network_ms, ready_ms;
};

struct agent_setup {
    int listener;
    bool vsock; /* the host alone may connect, and is called */
    enum power power;
    const char *const *env; /* ends with NULL */
    const char *workdir;
    const char *user;
    struct boot_times times;
};

struct conn;
struct kept;
struct stream;

struct agent {
    struct agent_setup setup;
    struct conn *conns;
    size_t conn_count;
    size_t stream_count;
    struct stream *detached; /* kept programs without a connection */
    struct kept *kept;       /* all kept programs, the oldest first */
    bool ending;
    struct watch listener;
    struct watch signals;
};

/* A socket that listens for the host on vsock; -1 with errno when there is no vsock. */
int agent_listen(void);

/* Whether a vsock device is there: without one nobody can connect. */
bool agent_has_device(void);

/* Serve until SIGTERM and the end of the last program. Returns an exit status. */
int agent_run(const struct agent_setup *setup);

/* The body of HELLO and HELLO_ACK. */
void agent_introduce(const struct agent *agent, struct writer *writer);

/* A child has ended with this wait status. */
void agent_reaped(struct agent *agent, pid_t pid, int status);

/* End the machine. False when this agent may not. */
bool agent_power(const struct agent *agent, bool restart);

#endif
