/* Interfaces by index: finding one, and the messages that set one up. */
#ifndef FIRKIN_LINK_H
#define FIRKIN_LINK_H

#include "config.h"
#include "netlink.h"

/* Index of the first interface with that MAC address (bridges borrow those of their ports); 0: not there. */
int link_find(int fd, struct burst *burst, const unsigned char *mac);

/* Each adds one message. */
void link_up(struct burst *burst, int index);
void link_mac(struct burst *burst, int index, const unsigned char *mac);
void link_address(struct burst *burst, int index, const struct address *address);
void link_default_route(struct burst *burst, int index, const struct interface *interface);

/* From now on a MAC that is set, even to what it was, is told to the neighbours: a gratuitous ARP for each address. */
void link_announces(struct burst *burst, int index);

void link_remove_address(struct burst *burst, int index, const struct address *address);
void link_remove_default_route(struct burst *burst, int index, int family);

#endif
