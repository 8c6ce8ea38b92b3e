/*
 * resolver.h - addresses of names, by c-ares on the loop's own thread: many at once, none waits for
 * another, and what is under way ends with the loop. An IPv4 address is preferred.
 *
 * The system's name servers are read anew once a minute, when no question is open.
 */
#ifndef PUB_RESOLVER_H
#define PUB_RESOLVER_H

#include <sys/socket.h>

#include "pub/loop.h"

struct pub_resolver;
struct pub_resolution {
    struct pub_message message; /* message.run is the asker's */
    struct pub_resolver *resolver;
    void *asker;
    struct sockaddr_storage addr;
    socklen_t addr_len; /* 0: no such host */
    char host[256], port[8];
};

/* Borrows the loop. `servers`: address:port of name servers, NULL for the system's. */
struct pub_resolver *pub_resolver_new(struct pub_loop *loop, const char *servers);
/* What is still open comes back without an address: flush the loop afterwards. NULL is fine. */
void pub_resolver_free(struct pub_resolver *r);
/* Takes the malloc'd question; it comes back as a message to the loop, never at once. */
void pub_resolve(struct pub_resolver *r, struct pub_resolution *question);

#endif
