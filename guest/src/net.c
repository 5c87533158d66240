/* Gives interfaces their addresses and default routes as the machine boots: one burst for each. */
#include "net.h"

#include <unistd.h>

#include "clock.h"
#include "link.h"
#include "log.h"

enum { INTERFACE_WAIT_MS = 3000 };

static int await_link(int fd, const struct interface *interface)
{
    struct backoff backoff = backoff_start(INTERFACE_WAIT_MS);
    do {
        int index = link_find(fd, interface->mac);
        if (index > 0)
            return index;
    } while (backoff_wait(&backoff));
    LOG("network ", interface->mac_text, ": no interface with that address after 3 s");
    return -1;
}

static int configure_interface(int fd, struct burst *burst, const struct interface *interface)
{
    int index = await_link(fd, interface);
    if (index < 0)
        return -1;
    link_announces(burst, index); /* for the day on which a fork gets another MAC */
    link_up(burst, index);
    link_address(burst, index, &interface->address);
    if (interface->gateway.family)
        link_default_route(burst, index, interface);
    return netlink_commit(fd, burst) == 0 ? 0 : log_errno("network", interface->mac_text);
}

static int configure_loopback(int fd, struct burst *burst)
{
    link_up(burst, 1); /* the first interface of every namespace; the kernel gives it its addresses */
    return netlink_commit(fd, burst) == 0 ? 0 : log_errno("network", "lo");
}

int net_configure(const struct config *config)
{
    static struct burst burst;
    int fd = netlink_open();
    if (fd < 0)
        return log_errno("network", NULL);
    int result = configure_loopback(fd, &burst);
    for (size_t i = 0; i < config->interface_count; i++)
        result |= configure_interface(fd, &burst, &config->interfaces[i]);
    close(fd);
    return result;
}
