/* Interfaces by index: what is asked of one, and the messages that set it up. `fd` is any socket. */
#ifndef FIRKIN_LINK_H
#define FIRKIN_LINK_H

#include "config.h"
#include "netlink.h"

/* Index of the first interface with that MAC address (bridges borrow those of their ports); 0: not there. */
int link_find(int fd, const unsigned char *mac);

/* Set the MAC, to what it was or another. -1 with errno. */
int link_set_mac(int fd, int index, const unsigned char *mac);

bool link_is_up(int fd, int index);

/* The rest adds one message each. */
void link_up(struct burst *burst, int index);
void link_address(struct burst *burst, int index, const struct address *address);
void link_default_route(struct burst *burst, int index, const struct interface *interface);

/* From now on a MAC that is set, even to what it was, is told to the neighbours: a gratuitous ARP for each address. */
void link_announces(struct burst *burst, int index);

void link_remove_address(struct burst *burst, int index, const struct address *address);
void link_remove_default_route(struct burst *burst, int index, int family);

#endif
