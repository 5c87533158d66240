/* Gives interfaces of a running guest another MAC and other addresses. Nothing of the old ones is left, and nothing is said
 * that joins an old address to a new MAC: that would draw the traffic of the machine that this one was forked from. */
#include "renew_net.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link.h"
#include "log.h"

enum { REMOVED_AT_ONCE = 16, MAX_ROUNDS = 64 };

struct renewal {
    int fd;
    struct burst burst;
    const struct config *config;
    int changed[MAX_INTERFACES];   /* index for each of config->macs */
    int addressed[MAX_INTERFACES]; /* and for each of config->interfaces */
    bool had_local[MAX_INTERFACES]; /* whether that had a link-local IPv6 address */
};

static int missing(const char *mac_text)
{
    LOG("network ", mac_text, ": no interface with that address");
    return -1;
}

/* An identity may come twice, as when its answer was lost: then the interface has the new MAC already. */
static int find_changed(struct renewal *renewal)
{
    for (size_t i = 0; i < renewal->config->mac_count; i++) {
        const struct mac_change *change = &renewal->config->macs[i];
        int index = link_find(renewal->fd, change->from);
        if (!index)
            index = link_find(renewal->fd, change->to);
        if (!index)
            return missing(change->from_text);
        renewal->changed[i] = index;
    }
    return 0;
}

static int index_of(struct renewal *renewal, const struct interface *interface)
{
    for (size_t i = 0; i < renewal->config->mac_count; i++)
        if (memcmp(renewal->config->macs[i].to, interface->mac, MAC_LEN) == 0)
            return renewal->changed[i];
    return link_find(renewal->fd, interface->mac);
}

static int find_addressed(struct renewal *renewal)
{
    for (size_t i = 0; i < renewal->config->interface_count; i++) {
        const struct interface *interface = &renewal->config->interfaces[i];
        renewal->addressed[i] = index_of(renewal, interface);
        if (!renewal->addressed[i])
            return missing(interface->mac_text);
    }
    return 0;
}

struct held {
    int index;
    size_t count;
    struct address addresses[REMOVED_AT_ONCE];
};

static void on_address(const struct nlmsghdr *header, void *context)
{
    struct held *held = context;
    const struct ifaddrmsg *info = NLMSG_DATA(header);
    if (header->nlmsg_type != RTM_NEWADDR || header->nlmsg_len < NLMSG_LENGTH(sizeof *info))
        return;
    if ((int)info->ifa_index != held->index || held->count == REMOVED_AT_ONCE)
        return;
    struct address *address = &held->addresses[held->count];
    int left = (int)IFA_PAYLOAD(header), own = info->ifa_family == AF_INET ? IFA_LOCAL : IFA_ADDRESS;
    for (struct rtattr *at = IFA_RTA(info); RTA_OK(at, left); at = RTA_NEXT(at, left))
        if (at->rta_type == own && RTA_PAYLOAD(at) <= sizeof address->bytes) {
            memcpy(address->bytes, RTA_DATA(at), RTA_PAYLOAD(at));
            address->family = info->ifa_family;
            address->prefix_len = info->ifa_prefixlen;
        }
    held->count += address->family != 0;
}

static bool list_addresses(struct renewal *renewal, struct held *held)
{
    netlink_begin(&renewal->burst, RTM_GETADDR, NLM_F_DUMP, sizeof(struct ifaddrmsg));
    return netlink_dump(renewal->fd, &renewal->burst, on_address, held);
}

static bool is_link_local(const struct address *address)
{
    return address->family == AF_INET6 && address->bytes[0] == 0xfe && (address->bytes[1] & 0xc0) == 0x80;
}

/* With the last IPv4 address the kernel drops routes and neighbours of that interface; IPv6 keeps its default route. */
static int remove_held(struct renewal *renewal, const struct held *held, bool *had_local)
{
    bool ipv6 = false;
    for (size_t i = 0; i < held->count; i++) {
        link_remove_address(&renewal->burst, held->index, &held->addresses[i]);
        ipv6 |= held->addresses[i].family == AF_INET6;
        *had_local |= is_link_local(&held->addresses[i]);
    }
    if (ipv6)
        link_remove_default_route(&renewal->burst, held->index, AF_INET6);
    return netlink_commit_removals(renewal->fd, &renewal->burst);
}

static int remove_addresses(struct renewal *renewal, int index, bool *had_local)
{
    for (int round = 0; round < MAX_ROUNDS; round++) {
        struct held held = {.index = index};
        if (!list_addresses(renewal, &held))
            return -1;
        if (!held.count)
            return 0;
        if (remove_held(renewal, &held, had_local) < 0)
            return -1;
    }
    errno = EBUSY; /* somebody adds them as fast */
    return -1;
}

static int remove_all(struct renewal *renewal)
{
    for (size_t i = 0; i < renewal->config->interface_count; i++)
        if (remove_addresses(renewal, renewal->addressed[i], &renewal->had_local[i]) < 0)
            return log_errno("network", renewal->config->interfaces[i].mac_text);
    return 0;
}

static int set_macs(struct renewal *renewal)
{
    for (size_t i = 0; i < renewal->config->mac_count; i++)
        if (link_set_mac(renewal->fd, renewal->changed[i], renewal->config->macs[i].to) < 0)
            return log_errno("network", renewal->config->macs[i].from_text);
    return 0;
}

/* What the kernel itself gives an interface when it comes up, made of its MAC. */
static struct address link_local(const unsigned char *mac)
{
    struct address address = {
        .family = AF_INET6, .prefix_len = 64,
        .bytes = {0xfe, 0x80, [8] = mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]},
    };
    return address;
}

static int add_one(struct renewal *renewal, size_t at)
{
    const struct interface *interface = &renewal->config->interfaces[at];
    struct burst *burst = &renewal->burst;
    int index = renewal->addressed[at];
    if (!link_is_up(renewal->fd, index))
        link_up(burst, index);
    if (renewal->had_local[at]) {
        const struct address local = link_local(interface->mac);
        link_address(burst, index, &local);
    }
    link_address(burst, index, &interface->address);
    if (interface->gateway.family)
        link_default_route(burst, index, interface);
    if (netlink_commit(renewal->fd, burst) < 0)
        return -1;
    return link_set_mac(renewal->fd, index, interface->mac); /* announces it, as the boot arranged */
}

static int add_all(struct renewal *renewal)
{
    for (size_t i = 0; i < renewal->config->interface_count; i++)
        if (add_one(renewal, i) < 0)
            return log_errno("network", renewal->config->interfaces[i].mac_text);
    return 0;
}

typedef int part_fn(struct renewal *renewal);

int renew_net(const struct config *config)
{
    static part_fn *const parts[] = {find_changed, find_addressed, remove_all, set_macs, add_all};
    static struct renewal renewal;
    int result = 0;
    if (!config->mac_count && !config->interface_count)
        return 0;
    renewal = (struct renewal){.fd = netlink_open(), .config = config};
    if (renewal.fd < 0)
        return log_errno("network", NULL);
    for (size_t i = 0; result == 0 && i < sizeof parts / sizeof *parts; i++)
        result = parts[i](&renewal);
    close(renewal.fd);
    return result;
}
