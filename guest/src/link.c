/* rtnetlink messages about interfaces, addresses and routes. */
#include "link.h"

#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

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

void link_up(struct burst *burst, int index)
{
    struct ifinfomsg *info = netlink_begin(burst, RTM_NEWLINK, 0, sizeof *info);
    info->ifi_index = index;
    info->ifi_flags = IFF_UP;
    info->ifi_change = IFF_UP;
}

void link_mac(struct burst *burst, int index, const unsigned char *mac)
{
    struct ifinfomsg *info = netlink_begin(burst, RTM_NEWLINK, 0, sizeof *info);
    info->ifi_index = index;
    netlink_attribute(burst, IFLA_ADDRESS, mac, MAC_LEN);
}

void link_address(struct burst *burst, int index, const struct address *address)
{
    struct ifaddrmsg *info = netlink_begin(burst, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof *info);
    info->ifa_family = (unsigned char)address->family;
    info->ifa_prefixlen = address->prefix_len;
    info->ifa_index = (unsigned)index;
    if (address->family == AF_INET6)
        info->ifa_flags = IFA_F_NODAD; /* the host hands out addresses: no second of asking for duplicates */
    netlink_attribute(burst, IFA_LOCAL, address->bytes, address_len(address));
    netlink_attribute(burst, IFA_ADDRESS, address->bytes, address_len(address));
}

void link_default_route(struct burst *burst, int index, const struct interface *interface)
{
    struct rtmsg *info = netlink_begin(burst, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof *info);
    info->rtm_family = (unsigned char)interface->gateway.family;
    info->rtm_table = RT_TABLE_MAIN;
    info->rtm_protocol = RTPROT_BOOT;
    info->rtm_scope = RT_SCOPE_UNIVERSE;
    info->rtm_type = RTN_UNICAST;
    if (!same_subnet(&interface->address, &interface->gateway))
        info->rtm_flags = RTNH_F_ONLINK;
    netlink_attribute(burst, RTA_GATEWAY, interface->gateway.bytes, address_len(&interface->gateway));
    netlink_attribute(burst, RTA_OIF, &index, sizeof index);
}

void link_announces(struct burst *burst, int index)
{
    static const struct {
        struct rtattr family, settings, setting;
        uint32_t value;
    } notify = {
        {sizeof notify, AF_INET},
        {sizeof notify - sizeof notify.family, IFLA_INET_CONF},
        {sizeof notify.setting + sizeof notify.value, IPV4_DEVCONF_ARP_NOTIFY},
        1,
    };
    struct ifinfomsg *info = netlink_begin(burst, RTM_NEWLINK, 0, sizeof *info);
    info->ifi_index = index;
    netlink_attribute(burst, IFLA_AF_SPEC, &notify, sizeof notify);
}

void link_remove_address(struct burst *burst, int index, const struct address *address)
{
    struct ifaddrmsg *info = netlink_begin(burst, RTM_DELADDR, 0, sizeof *info);
    info->ifa_family = (unsigned char)address->family;
    info->ifa_prefixlen = address->prefix_len;
    info->ifa_index = (unsigned)index;
    netlink_attribute(burst, IFA_LOCAL, address->bytes, address_len(address));
}

void link_remove_default_route(struct burst *burst, int index, int family)
{
    struct rtmsg *info = netlink_begin(burst, RTM_DELROUTE, 0, sizeof *info);
    info->rtm_family = (unsigned char)family;
    info->rtm_table = RT_TABLE_MAIN;
    info->rtm_scope = RT_SCOPE_NOWHERE; /* any */
    netlink_attribute(burst, RTA_OIF, &index, sizeof index);
}

struct search {
    const unsigned char *mac;
    int index;
};

static void on_link(const struct nlmsghdr *header, void *context)
{
    struct search *search = context;
    const struct ifinfomsg *info = NLMSG_DATA(header);
    if (search->index || header->nlmsg_type != RTM_NEWLINK || header->nlmsg_len < NLMSG_LENGTH(sizeof *info))
        return;
    int left = (int)IFLA_PAYLOAD(header);
    for (struct rtattr *at = IFLA_RTA(info); RTA_OK(at, left); at = RTA_NEXT(at, left))
        if (at->rta_type == IFLA_ADDRESS && RTA_PAYLOAD(at) == MAC_LEN
            && memcmp(RTA_DATA(at), search->mac, MAC_LEN) == 0)
            search->index = info->ifi_index;
}

int link_find(int fd, struct burst *burst, const unsigned char *mac)
{
    struct search search = {.mac = mac};
    uint32_t filter = RTEXT_FILTER_SKIP_STATS;
    struct ifinfomsg *info = netlink_begin(burst, RTM_GETLINK, NLM_F_DUMP, sizeof *info);
    info->ifi_family = AF_UNSPEC;
    netlink_attribute(burst, IFLA_EXT_MASK, &filter, sizeof filter);
    return netlink_dump(fd, burst, on_link, &search) ? search.index : 0;
}
