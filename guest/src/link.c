/* Interfaces by ioctl, addresses and routes by rtnetlink. For interfaces, netlink takes the kernel through ten times the
 * code, which a fork under emulation runs for the first time. */
#include "link.h"

#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { HIGHEST_INDEX = 64 }; /* devices of the machine are found as it boots; what programs add comes later */

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

int link_find(int fd, const unsigned char *mac)
{
    for (int index = 1; index <= HIGHEST_INDEX; index++) {
        struct ifreq ask = {.ifr_ifindex = index};
        if (ioctl(fd, SIOCGIFNAME, &ask) == 0 && ioctl(fd, SIOCGIFHWADDR, &ask) == 0
            && ask.ifr_hwaddr.sa_family == ARPHRD_ETHER && memcmp(ask.ifr_hwaddr.sa_data, mac, MAC_LEN) == 0)
            return index;
    }
    return 0;
}

int link_set_mac(int fd, int index, const unsigned char *mac)
{
    struct ifreq ask = {.ifr_ifindex = index};
    if (ioctl(fd, SIOCGIFNAME, &ask) < 0)
        return -1;
    ask.ifr_hwaddr = (struct sockaddr){.sa_family = ARPHRD_ETHER};
    memcpy(ask.ifr_hwaddr.sa_data, mac, MAC_LEN);
    return ioctl(fd, SIOCSIFHWADDR, &ask);
}

bool link_is_up(int fd, int index)
{
    struct ifreq ask = {.ifr_ifindex = index};
    return ioctl(fd, SIOCGIFNAME, &ask) == 0 && ioctl(fd, SIOCGIFFLAGS, &ask) == 0 && ask.ifr_flags & IFF_UP;
}
