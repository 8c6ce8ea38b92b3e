/*
 * network.h - what a build may reach, decided by name and by address.
 *
 * A build's commands have no network but a way to a proxy (proxy.h), which asks here. Hosts that
 * the operator named (package indexes of the service's pip settings, BUILD_NETWORK_HOSTS) may be
 * anywhere; hosts that the job itself named must have a public address: no service of this machine,
 * of its network or of the cloud around it is one. Rules are read-only once made: any thread.
 */
#ifndef IMAGE_BUILDER_BUILD_NETWORK_H
#define IMAGE_BUILDER_BUILD_NETWORK_H

#include <stdbool.h>
#include <sys/socket.h>

#include "libtrack/base/args.h"
#include "libtrack/base/err.h"

struct network_rules {
    struct trk_args trusted; /* "host:port", lower case; a host may begin with "*." */
    struct trk_args named;   /* the same, by the job */
    bool any_public;         /* whatever has a public address */
    bool any_remote;         /* whatever is not this machine or its link */
};
void network_rules_fini(struct network_rules *rules);

/* The package index that pip takes when nobody names another. */
void network_trust_default_index(struct network_rules *rules);
/* "host", "host:port", "*.host", separated by blanks or commas; without a port: 80 and 443. */
void network_trust_hosts(struct network_rules *rules, const char *list);
/* The host of every http(s) URL that occurs in the text. */
void network_trust_urls(struct network_rules *rules, const char *text);
void network_name_urls(struct network_rules *rules, const char *text);

enum network_verdict {
    NETWORK_REFUSED,
    NETWORK_IF_PUBLIC,
    NETWORK_IF_REMOTE, /* not network_is_local */
    NETWORK_ALLOWED
};
enum network_verdict network_judge(const struct network_rules *rules, const char *host,
                                   unsigned port);

/* Can everybody on the internet have this address? */
bool network_is_public(const struct sockaddr *addr);
/* Loopback, link-local, "this host", multicast: what nobody else can mean. */
bool network_is_local(const struct sockaddr *addr);

/* "host:port", "[v6]:port", "host"; port_default 0: a port is required. Host in lower case. */
int network_split(const char *authority, size_t len, unsigned port_default, char ret_host[256],
                  unsigned *ret_port, struct trk_err *err) TRK_MUST_CHECK;
/* Connects to the first address that answers. `refuse` (may be NULL): addresses it says true to
 * are as good as none; when none is left TRK_FORBIDDEN. *ret_fd is a blocking stream socket. */
int network_connect(const char *host, unsigned port, bool (*refuse)(const struct sockaddr *addr),
                    int *ret_fd, struct trk_err *err) TRK_MUST_CHECK;
bool network_is_not_public(const struct sockaddr *addr); /* a `refuse` */

#endif
