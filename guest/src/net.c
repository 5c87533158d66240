/* Addresses and routes by rtnetlink: one message burst per interface, one acknowledgement for the burst. */
#include "net.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"

enum { INTERFACE_WAIT_MS = 3000, REPLY_TIMEOUT_S = 2 };

/* Requests to send together. */
struct burst {
    size_t len;
    uint32_t sequence;
    struct nlmsghdr *last;
    _Alignas(NLMSG_ALIGNTO) char data[1024];
};

/* Start a message with room for its fixed part; returns that part, zeroed. */
static void *begin(struct burst *burst, uint16_t type, uint16_t flags, size_t fixed_len)
{
    struct nlmsghdr *header = (struct nlmsghdr *)(burst->data + burst->len);
    memset(header, 0, NLMSG_SPACE(fixed_len));
    header->nlmsg_len = (uint32_t)NLMSG_LENGTH(fixed_len);
    header->nlmsg_type = type;
    header->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    header->nlmsg_seq = ++burst->sequence;
    burst->last = header;
    burst->len += NLMSG_SPACE(fixed_len);
    return NLMSG_DATA(header);
}

static void attribute(struct burst *burst, uint16_t type, const void *value, size_t len)
{
    struct rtattr *attribute = (struct rtattr *)(burst->data + burst->len);
    memset(attribute, 0, RTA_SPACE(len));
    attribute->rta_type = type;
    attribute->rta_len = (uint16_t)RTA_LENGTH(len);
    memcpy(RTA_DATA(attribute), value, len);
    burst->len += RTA_SPACE(len);
    burst->last->nlmsg_len = (uint32_t)(burst->data + burst->len - (char *)burst->last);
}

static size_t address_len(const struct address *address)
{
    return address->family == AF_INET ? 4 : 16;
}

static bool same_subnet(const struct address *address, const struct address *gateway)
{
    unsigned whole = address->prefix_len / 8, bits = address->prefix_len % 8;
    if (memcmp(address->bytes, gateway->bytes, whole) != 0)
        return false;
    return bits == 0 || (address->bytes[whole] ^ gateway->bytes[whole]) >> (8 - bits) == 0;
}

static void add_link_up(struct burst *burst, int index)
{
    struct ifinfomsg *info = begin(burst, RTM_NEWLINK, 0, sizeof *info);
    info->ifi_index = index;
    info->ifi_flags = IFF_UP;
    info->ifi_change = IFF_UP;
}

static void add_address(struct burst *burst, int index, const struct address *address)
{
    struct ifaddrmsg *info = begin(burst, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof *info);
    info->ifa_family = (unsigned char)address->family;
    info->ifa_prefixlen = address->prefix_len;
    info->ifa_index = (unsigned)index;
    if (address->family == AF_INET6)
        info->ifa_flags = IFA_F_NODAD; /* the host hands out addresses: no second of asking for duplicates */
    attribute(burst, IFA_LOCAL, address->bytes, address_len(address));
    attribute(burst, IFA_ADDRESS, address->bytes, address_len(address));
}

static void add_default_route(struct burst *burst, int index, const struct interface *interface)
{
    struct rtmsg *info = begin(burst, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof *info);
    info->rtm_family = (unsigned char)interface->gateway.family;
    info->rtm_table = RT_TABLE_MAIN;
    info->rtm_protocol = RTPROT_BOOT;
    info->rtm_scope = RT_SCOPE_UNIVERSE;
    info->rtm_type = RTN_UNICAST;
    if (!same_subnet(&interface->address, &interface->gateway))
        info->rtm_flags = RTNH_F_ONLINK;
    attribute(burst, RTA_GATEWAY, interface->gateway.bytes, address_len(&interface->gateway));
    attribute(burst, RTA_OIF, &index, sizeof index);
}

/* Hand every message of one reply to `each` until it returns non-zero, which becomes the result. */
static int read_replies(int fd, int (*each)(const struct nlmsghdr *header, void *context), void *context)
{
    static _Alignas(NLMSG_ALIGNTO) char reply[32768];
    for (;;) {
        ssize_t got = recv(fd, reply, sizeof reply, 0);
        if (got < 0)
            return -errno;
        int left = (int)got;
        for (struct nlmsghdr *header = (struct nlmsghdr *)reply; NLMSG_OK(header, (unsigned)left);
             header = NLMSG_NEXT(header, left)) {
            int result = each(header, context);
            if (result != 0)
                return result;
        }
    }
}

static int on_acknowledgement(const struct nlmsghdr *header, void *context)
{
    const struct nlmsgerr *error = NLMSG_DATA(header);
    const struct burst *burst = context;
    if (header->nlmsg_type != NLMSG_ERROR || header->nlmsg_len < NLMSG_LENGTH(sizeof *error))
        return 0;
    if (error->error != 0)
        return error->error;
    return header->nlmsg_seq == burst->sequence ? 1 : 0;
}

/* Send the burst and wait until the kernel has done its last message. 0, or -1 with errno. */
static int commit(int fd, struct burst *burst)
{
    burst->last->nlmsg_flags |= NLM_F_ACK; /* failures are reported for every message, success for this one only */
    if (send(fd, burst->data, burst->len, 0) < 0)
        return -1;
    int result = read_replies(fd, on_acknowledgement, burst);
    burst->len = 0;
    if (result > 0)
        return 0;
    errno = -result;
    return -1;
}

struct search {
    const unsigned char *mac;
    int index;
};

static int on_link(const struct nlmsghdr *header, void *context)
{
    struct search *search = context;
    const struct ifinfomsg *info = NLMSG_DATA(header);
    if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR)
        return 1;
    if (header->nlmsg_type != RTM_NEWLINK || header->nlmsg_len < NLMSG_LENGTH(sizeof *info))
        return 0;
    int left = (int)IFLA_PAYLOAD(header);
    for (struct rtattr *at = IFLA_RTA(info); RTA_OK(at, left); at = RTA_NEXT(at, left))
        if (at->rta_type == IFLA_ADDRESS && RTA_PAYLOAD(at) == 6 && memcmp(RTA_DATA(at), search->mac, 6) == 0)
            search->index = info->ifi_index;
    return 0; /* on to the end of the dump, which must be read whole */
}

/* Index of the interface with that MAC address; 0: not there. */
static int find_link(int fd, struct burst *burst, const unsigned char *mac)
{
    struct search search = {.mac = mac};
    uint32_t filter = RTEXT_FILTER_SKIP_STATS;
    struct ifinfomsg *info = begin(burst, RTM_GETLINK, NLM_F_DUMP, sizeof *info);
    info->ifi_family = AF_UNSPEC;
    attribute(burst, IFLA_EXT_MASK, &filter, sizeof filter);
    ssize_t sent = send(fd, burst->data, burst->len, 0);
    burst->len = 0;
    if (sent < 0 || read_replies(fd, on_link, &search) < 0)
        return 0;
    return search.index;
}

static int await_link(int fd, struct burst *burst, const struct interface *interface)
{
    struct backoff backoff = backoff_start(INTERFACE_WAIT_MS);
    do {
        int index = find_link(fd, burst, interface->mac);
        if (index > 0)
            return index;
    } while (backoff_wait(&backoff));
    LOG("network ", interface->mac_text, ": no interface with that address after 3 s");
    return -1;
}

static int configure_interface(int fd, struct burst *burst, const struct interface *interface)
{
    int index = await_link(fd, burst, interface);
    if (index < 0)
        return -1;
    add_link_up(burst, index);
    add_address(burst, index, &interface->address);
    if (interface->gateway.family)
        add_default_route(burst, index, interface);
    return commit(fd, burst) == 0 ? 0 : log_errno("network", interface->mac_text);
}

static int configure_loopback(int fd, struct burst *burst)
{
    add_link_up(burst, 1); /* the first interface of every namespace; the kernel gives it its addresses */
    return commit(fd, burst) == 0 ? 0 : log_errno("network", "lo");
}

int net_configure(const struct config *config)
{
    static struct burst burst;
    struct timeval limit = {.tv_sec = REPLY_TIMEOUT_S};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return log_errno("network", NULL);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    int result = configure_loopback(fd, &burst);
    for (size_t i = 0; i < config->interface_count; i++)
        result |= configure_interface(fd, &burst, &config->interfaces[i]);
    close(fd);
    return result;
}
