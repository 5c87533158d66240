/* TCP to the guest's own loopback. */
#ifndef FIRKIN_LOOPBACK_H
#define FIRKIN_LOOPBACK_H

#include <stdint.h>

enum loopback_family { LOOPBACK_IPV4, LOOPBACK_IPV6 };

/* Begin to connect. A non-blocking socket, writable when it has worked or failed; -1 with errno. */
int loopback_connect(enum loopback_family family, uint16_t port);

/* 0 when that has worked, else why not. */
int loopback_result(int fd);

#endif
