/* rtnetlink: requests in bursts, and dumps. */
#ifndef FIRKIN_NETLINK_H
#define FIRKIN_NETLINK_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Requests to send together. */
struct burst {
    size_t len;
    uint32_t sequence;
    struct nlmsghdr *last;
    _Alignas(NLMSG_ALIGNTO) char data[2048];
};

/* A socket whose replies are waited for two seconds; -1 with errno. */
int netlink_open(void);

/* Start a message with room for its fixed part; returns that part, zeroed. */
void *netlink_begin(struct burst *burst, uint16_t type, uint16_t flags, size_t fixed_len);
void netlink_attribute(struct burst *burst, uint16_t type, const void *value, size_t len);

/* Send the burst and wait until the kernel has done its last message. 0, or -1 with the first errno. */
int netlink_commit(int fd, struct burst *burst);

/* The same for removals: what is gone already is no failure. */
int netlink_commit_removals(int fd, struct burst *burst);

/* Ask what `burst` says and hand every message of the answer to `each`. False: no whole answer. */
typedef void netlink_each_fn(const struct nlmsghdr *header, void *context);
bool netlink_dump(int fd, struct burst *burst, netlink_each_fn *each, void *context);

#endif
