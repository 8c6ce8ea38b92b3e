/*
 * upstream.h - addresses of jobs, and connections to them.
 *
 * A host is one "name:port" with its resolved address, its idle connections and whether it failed
 * lately. A connection belongs to one owner at a time and reports to its callback; between two
 * owners it lies in its host's idle list, where any sign of life ends it before it is handed out.
 * One set a loop, used by its thread only.
 */
#ifndef PUB_UPSTREAM_H
#define PUB_UPSTREAM_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "pub/loop.h"

#define PUB_HOST_BUCKETS 256

struct pub_up;
struct pub_host {
    struct pub_host *next;
    struct pub_hosts *set;
    unsigned refs;   /* targets and connections */
    unsigned active; /* connections in use */
    int64_t failed_until_ns;
    struct sockaddr_storage addr;
    socklen_t addr_len; /* 0: not known */
    bool is_numeric, is_resolving;
    int64_t resolved_ns;
    struct pub_up *waiting; /* for the address */
    struct pub_up *idle;    /* last used first */
    struct pub_up *idle_oldest;
    unsigned idle_count;
    char name[]; /* "host:port" */
};
struct pub_hosts {
    struct pub_loop *loop;
    struct pub_resolver *resolver;
    struct pub_timer sweep;
    unsigned idle_max;
    int64_t idle_timeout_ns;
    unsigned idle_count; /* of all hosts */
    struct pub_host *buckets[PUB_HOST_BUCKETS];
};

enum pub_up_state { PUB_UP_RESOLVING, PUB_UP_CONNECTING, PUB_UP_OPEN, PUB_UP_FAILED };
struct pub_up {
    struct pub_watch watch;
    struct pub_grave grave;
    struct pub_host *host;
    enum pub_up_state state;
    bool is_reused, is_readable, is_writable;
    bool has_hangup; /* the peer's FIN or an error was seen: read on until it shows */
    int error;       /* errno when FAILED */
    /* Called on every event; the state says what happened. Not called from within pub_up_get. */
    void (*on_up)(struct pub_up *up);
    void *owner;
    struct pub_up *next, *prev; /* idle or waiting */
    int64_t idle_since_ns;
};

void pub_hosts_init(struct pub_hosts *set, struct pub_loop *loop, unsigned idle_max,
                    int64_t idle_timeout_ns);
/* Closes idle connections and ends what is being resolved; hosts in use go with their last user.
 * Nobody waits for a connection any more. */
void pub_hosts_fini(struct pub_hosts *set);
/* Counted once more; "host" without a port means port 7000. NULL when it is no host[:port]. */
struct pub_host *pub_host_get(struct pub_hosts *set, const char *name);
void pub_host_unref(struct pub_host *host);
/* Avoid it for a moment, and look its name up again. */
void pub_host_failed(struct pub_host *host);

/* Is the error the gateway's own, for want of descriptors, ports or memory? */
bool pub_up_is_exhausted(int error);
/* An idle connection (state OPEN) unless `fresh`, else a new one on its way. Never NULL; a failure
 * to start is reported by state FAILED at once. */
struct pub_up *pub_up_get(struct pub_host *host, bool fresh, void (*on_up)(struct pub_up *up),
                          void *owner);
/* Back to the idle list, or closed. */
void pub_up_put(struct pub_up *up, bool can_reuse);
/* recv and send that keep the flags; -EAGAIN when it would block, other -errno; 0 from recv is the
 * end. */
ssize_t pub_up_recv(struct pub_up *up, void *bytes, size_t size);

#endif
