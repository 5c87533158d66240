/* rtnetlink: one burst of messages, one acknowledgement for the burst. */
#include "netlink.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { REPLY_TIMEOUT_S = 2 };

int netlink_open(void)
{
    struct timeval limit = {.tv_sec = REPLY_TIMEOUT_S};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

void *netlink_begin(struct burst *burst, uint16_t type, uint16_t flags, size_t fixed_len)
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

void netlink_attribute(struct burst *burst, uint16_t type, const void *value, size_t len)
{
    struct rtattr *attribute = (struct rtattr *)(burst->data + burst->len);
    memset(attribute, 0, RTA_SPACE(len));
    attribute->rta_type = type;
    attribute->rta_len = (uint16_t)RTA_LENGTH(len);
    memcpy(RTA_DATA(attribute), value, len);
    burst->len += RTA_SPACE(len);
    burst->last->nlmsg_len = (uint32_t)(burst->data + burst->len - (char *)burst->last);
}

/* Hand every message of one reply to `each` until it is done. 0, or an errno. */
static int read_replies(int fd, bool (*is_done)(const struct nlmsghdr *header, void *context), void *context)
{
    static _Alignas(NLMSG_ALIGNTO) char reply[32768];
    for (;;) {
        ssize_t got = recv(fd, reply, sizeof reply, 0);
        if (got < 0)
            return errno;
        int left = (int)got;
        for (struct nlmsghdr *header = (struct nlmsghdr *)reply; NLMSG_OK(header, (unsigned)left);
             header = NLMSG_NEXT(header, left))
            if (is_done(header, context))
                return 0;
    }
}

struct outcome {
    uint32_t last;
    bool removes;
    int error; /* the first */
};

/* What an address or route that is not there is answered with: the kernel took it away with another one. */
static bool is_gone(int error)
{
    return error == EADDRNOTAVAIL || error == ESRCH;
}

static bool on_acknowledgement(const struct nlmsghdr *header, void *context)
{
    const struct nlmsgerr *reply = NLMSG_DATA(header);
    struct outcome *outcome = context;
    if (header->nlmsg_type != NLMSG_ERROR || header->nlmsg_len < NLMSG_LENGTH(sizeof *reply))
        return false;
    if (!outcome->error && !(outcome->removes && is_gone(-reply->error)))
        outcome->error = -reply->error;
    return header->nlmsg_seq == outcome->last;
}

static int commit(int fd, struct burst *burst, bool removes)
{
    struct outcome outcome = {.last = burst->sequence, .removes = removes};
    size_t len = burst->len;
    burst->len = 0;
    if (!len)
        return 0;
    burst->last->nlmsg_flags |= NLM_F_ACK; /* failures are reported for every message, success for this one only */
    if (send(fd, burst->data, len, 0) < 0)
        return -1;
    int fault = read_replies(fd, on_acknowledgement, &outcome);
    errno = fault ? fault : outcome.error;
    return errno ? -1 : 0;
}

int netlink_commit(int fd, struct burst *burst)
{
    return commit(fd, burst, false);
}

int netlink_commit_removals(int fd, struct burst *burst)
{
    return commit(fd, burst, true);
}

struct dump {
    netlink_each_fn *each;
    void *context;
};

static bool on_dumped(const struct nlmsghdr *header, void *context)
{
    const struct dump *dump = context;
    if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR)
        return true;
    dump->each(header, dump->context);
    return false; /* on to the end of the dump, which must be read whole */
}

bool netlink_dump(int fd, struct burst *burst, netlink_each_fn *each, void *context)
{
    struct dump dump = {.each = each, .context = context};
    ssize_t sent = send(fd, burst->data, burst->len, 0);
    burst->len = 0;
    return sent >= 0 && read_replies(fd, on_dumped, &dump) == 0;
}
