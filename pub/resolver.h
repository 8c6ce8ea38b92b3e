/*
 * resolver.h - getaddrinfo on a helper thread, started on first use.
 */
#ifndef PUB_RESOLVER_H
#define PUB_RESOLVER_H

#include <sys/socket.h>

#include "pub/loop.h"

struct pub_resolution {
    struct pub_message message; /* message.run is the asker's */
    struct pub_loop *loop;
    struct pub_resolution *next;
    void *asker;
    struct sockaddr_storage addr;
    socklen_t addr_len; /* 0: no such host */
    char host[256], port[8];
};
/* Takes the malloc'd question; it comes back as a message to its loop. Any thread. */
void pub_resolve(struct pub_resolution *question);

#endif
