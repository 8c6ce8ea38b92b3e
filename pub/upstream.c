#include "pub/upstream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "pub/resolver.h"

#define DEFAULT_PORT    "7000"
#define RESOLVED_FOR_NS (30 * TRK_NS_PER_S)
#define AVOID_FAILED_NS (2 * TRK_NS_PER_S)
#define SWEEP_EVERY_NS  TRK_NS_PER_S

/* -- hosts -- */

static bool split_name(const char *name, char host[256], char port[8])
{
    const char *start = name;
    size_t host_len;
    const char *after;
    if (*name == '[') {
        start++;
        host_len = strcspn(start, "]");
        after = start + host_len + (start[host_len] == ']');
    } else {
        host_len = strcspn(name, ":");
        after = name + host_len;
    }
    const char *port_text = *after == ':' ? after + 1 : DEFAULT_PORT;
    size_t port_len = strlen(port_text);
    if (host_len == 0 || host_len > 255 || (*after != '\0' && *after != ':') || port_len == 0 ||
        port_len > 5 || strspn(port_text, "0123456789") != port_len || atoi(port_text) > 65535) {
        return false;
    }
    memcpy(host, start, host_len);
    host[host_len] = '\0';
    memcpy(port, port_text, port_len + 1);
    return true;
}

static void set_numeric(struct pub_host *h, const char *host, const char *port)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&h->addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&h->addr;
    in_port_t net_port = htons((uint16_t)atoi(port));
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = net_port;
        h->addr_len = sizeof(*v4);
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = net_port;
        h->addr_len = sizeof(*v6);
    }
    h->is_numeric = h->addr_len > 0;
}

static struct pub_host **bucket_of(struct pub_hosts *set, const char *name)
{
    unsigned hash = 5381;
    for (const char *p = name; *p != '\0'; p++) {
        hash = hash * 33 ^ (unsigned char)*p;
    }
    return &set->buckets[hash % PUB_HOST_BUCKETS];
}

struct pub_host *pub_host_get(struct pub_hosts *set, const char *name)
{
    struct pub_host **bucket = bucket_of(set, name);
    for (struct pub_host *h = *bucket; h != NULL; h = h->next) {
        if (strcmp(h->name, name) == 0) {
            h->refs++;
            return h;
        }
    }
    char host[256], port[8];
    if (!split_name(name, host, port)) {
        return NULL;
    }
    size_t len = strlen(name);
    struct pub_host *h = trk_xcalloc(1, sizeof(*h) + len + 1);
    memcpy(h->name, name, len + 1);
    h->set = set;
    h->refs = 1;
    set_numeric(h, host, port);
    h->next = *bucket;
    *bucket = h;
    return h;
}

static void close_idle(struct pub_up *up);

void pub_host_unref(struct pub_host *host)
{
    if (host == NULL || --host->refs > 0) {
        return;
    }
    struct pub_host **p = bucket_of(host->set, host->name);
    while (*p != host) {
        p = &(*p)->next;
    }
    *p = host->next;
    free(host);
}

void pub_host_failed(struct pub_host *host)
{
    host->failed_until_ns = host->set->loop->now_ns + AVOID_FAILED_NS;
    if (!host->is_numeric) {
        host->addr_len = 0;
    }
}

/* -- idle connections -- */

static void unlink_idle(struct pub_up *up)
{
    struct pub_host *h = up->host;
    *(up->prev != NULL ? &up->prev->next : &h->idle) = up->next;
    *(up->next != NULL ? &up->next->prev : &h->idle_oldest) = up->prev;
    up->next = up->prev = NULL;
    h->idle_count--;
    h->set->idle_count--;
}

/* Closes and frees; the caller has unlinked it. */
static void discard(struct pub_up *up)
{
    struct pub_host *h = up->host;
    pub_loop_close(&up->watch);
    up->host = NULL;
    pub_loop_bury(h->set->loop, &up->grave, up);
    pub_host_unref(h);
}

static void close_idle(struct pub_up *up)
{
    unlink_idle(up);
    discard(up);
}

/* Any news on an idle connection is its end: jobs do not speak unasked. */
static void on_idle_event(struct pub_up *up)
{
    if (up->is_readable || up->has_hangup) {
        close_idle(up);
    }
}

static void sweep(struct pub_timer *timer)
{
    struct pub_hosts *set = PUB_CONTAINER(timer, struct pub_hosts, sweep);
    int64_t oldest = set->loop->now_ns - set->idle_timeout_ns;
    for (int i = 0; i < PUB_HOST_BUCKETS; i++) {
        for (struct pub_host *h = set->buckets[i], *next; h != NULL; h = next) {
            next = h->next;
            h->refs++; /* closing its last connection must not free it here */
            while (h->idle_oldest != NULL && h->idle_oldest->idle_since_ns < oldest) {
                close_idle(h->idle_oldest);
            }
            pub_host_unref(h);
        }
    }
    if (set->idle_count > 0) {
        pub_timer_set(&set->loop->wheel, &set->sweep, set->loop->now_ns + SWEEP_EVERY_NS);
    }
}

void pub_hosts_init(struct pub_hosts *set, struct pub_loop *loop, unsigned idle_max,
                    int64_t idle_timeout_ns)
{
    *set = (struct pub_hosts){.loop = loop,
                              .resolver = pub_resolver_new(loop, NULL),
                              .idle_max = idle_max,
                              .idle_timeout_ns = idle_timeout_ns,
                              .sweep = {.on_fire = sweep}};
}

void pub_hosts_fini(struct pub_hosts *set)
{
    if (set->loop == NULL) {
        return; /* it never began */
    }
    pub_timer_cancel(&set->sweep);
    pub_resolver_free(set->resolver);
    pub_loop_flush(set->loop);
    for (int i = 0; i < PUB_HOST_BUCKETS; i++) {
        for (struct pub_host *h = set->buckets[i], *next; h != NULL; h = next) {
            next = h->next;
            h->refs++;
            while (h->idle != NULL) {
                close_idle(h->idle);
            }
            pub_host_unref(h);
        }
    }
}

/* -- connecting -- */

static void fail(struct pub_up *up, int error)
{
    up->state = PUB_UP_FAILED;
    up->error = error;
}

static void on_event(struct pub_watch *watch, uint32_t events)
{
    struct pub_up *up = PUB_CONTAINER(watch, struct pub_up, watch);
    if (up->state == PUB_UP_CONNECTING) {
        int error = 0;
        socklen_t len = sizeof(error);
        (void)getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error != 0) {
            fail(up, error);
            up->on_up(up);
            return;
        }
        if ((events & EPOLLOUT) == 0) {
            return;
        }
        up->state = PUB_UP_OPEN;
    }
    up->is_readable |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    up->is_writable |= (events & EPOLLOUT) != 0;
    up->has_hangup |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    up->on_up(up);
}

bool pub_up_is_exhausted(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS ||
           error == EADDRNOTAVAIL;
}

/* Gives up the least used connection of some host: a descriptor for one that is needed now. */
static bool give_up_idle(struct pub_hosts *set)
{
    for (int i = 0; i < PUB_HOST_BUCKETS && set->idle_count > 0; i++) {
        for (struct pub_host *h = set->buckets[i]; h != NULL; h = h->next) {
            if (h->idle_oldest != NULL) {
                close_idle(h->idle_oldest);
                return true;
            }
        }
    }
    return false;
}

static int open_socket(const struct pub_host *h)
{
    int fd;
    do {
        fd = socket(h->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    } while (fd < 0 && (errno == EMFILE || errno == ENFILE) && give_up_idle(h->set));
    return fd;
}

static void start_connecting(struct pub_up *up)
{
    struct pub_host *h = up->host;
    up->watch.fd = open_socket(h);
    if (up->watch.fd < 0) {
        fail(up, errno);
        return;
    }
    int one = 1;
    (void)setsockopt(up->watch.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    up->state = PUB_UP_CONNECTING;
    if (connect(up->watch.fd, (struct sockaddr *)&h->addr, h->addr_len) < 0 &&
        errno != EINPROGRESS) {
        fail(up, errno);
        return;
    }
    int n = pub_loop_add(h->set->loop, &up->watch, PUB_EVENTS);
    if (n < 0) {
        fail(up, -n);
    }
}

static void on_resolved(struct pub_message *message, void *ctx)
{
    (void)ctx;
    struct pub_resolution *q = (struct pub_resolution *)message;
    struct pub_host *h = q->asker;
    h->is_resolving = false;
    if (q->addr_len > 0) {
        memcpy(&h->addr, &q->addr, sizeof(h->addr));
        h->addr_len = q->addr_len;
        h->resolved_ns = h->set->loop->now_ns;
    }
    while (h->waiting != NULL) {
        struct pub_up *up = h->waiting;
        h->waiting = up->next;
        if (up->next != NULL) {
            up->next->prev = NULL;
        }
        up->next = up->prev = NULL;
        if (h->addr_len == 0) {
            fail(up, EHOSTUNREACH);
        } else {
            start_connecting(up);
        }
        if (up->state == PUB_UP_FAILED) {
            up->on_up(up);
        }
    }
    pub_host_unref(h);
}

static void wait_for_address(struct pub_up *up)
{
    struct pub_host *h = up->host;
    up->state = PUB_UP_RESOLVING;
    up->next = h->waiting;
    if (h->waiting != NULL) {
        h->waiting->prev = up;
    }
    h->waiting = up;
    if (h->is_resolving) {
        return;
    }
    struct pub_resolution *q = trk_xcalloc(1, sizeof(*q));
    q->message.run = on_resolved;
    q->asker = h;
    h->refs++;
    h->is_resolving = true;
    (void)split_name(h->name, q->host, q->port);
    pub_resolve(h->set->resolver, q);
}

/* -- handing out -- */

static bool is_quiet(const struct pub_up *up)
{
    char c;
    return recv(up->watch.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
           (errno == EAGAIN || errno == EWOULDBLOCK);
}

/* What had happened to idle connections when this turn began is known: their events come first. So
 * one that lay idle since an earlier turn needs no look of its own. */
static struct pub_up *take_idle(struct pub_host *host)
{
    while (host->idle != NULL) {
        struct pub_up *up = host->idle;
        const struct pub_loop *loop = host->set->loop;
        if ((loop->has_all_events && up->idle_since_ns < loop->now_ns) || is_quiet(up)) {
            unlink_idle(up);
            up->watch.is_first = false;
            return up;
        }
        close_idle(up);
    }
    return NULL;
}

struct pub_up *pub_up_get(struct pub_host *host, bool fresh, void (*on_up)(struct pub_up *up),
                          void *owner)
{
    host->refs++; /* the connection's; keeps the host while idle ones are closed */
    struct pub_up *up = fresh ? NULL : take_idle(host);
    if (up != NULL) {
        host->refs--;
        up->is_reused = true;
    } else {
        up = trk_xcalloc(1, sizeof(*up));
        up->host = host;
        up->watch.fd = -1;
        up->watch.on_event = on_event;
    }
    up->on_up = on_up;
    up->owner = owner;
    host->active++;
    if (up->is_reused) {
        return up;
    }
    bool is_known = host->addr_len > 0 &&
                    (host->is_numeric ||
                     host->set->loop->now_ns - host->resolved_ns < RESOLVED_FOR_NS);
    if (is_known) {
        start_connecting(up);
    } else {
        wait_for_address(up);
    }
    return up;
}

void pub_up_put(struct pub_up *up, bool can_reuse)
{
    struct pub_host *h = up->host;
    struct pub_hosts *set = h->set;
    h->active--;
    if (up->state == PUB_UP_RESOLVING) {
        *(up->prev != NULL ? &up->prev->next : &h->waiting) = up->next;
        if (up->next != NULL) {
            up->next->prev = up->prev;
        }
    }
    if (!can_reuse || up->state != PUB_UP_OPEN || up->has_hangup ||
        h->idle_count >= set->idle_max || (up->is_readable && !is_quiet(up))) {
        up->next = up->prev = NULL;
        discard(up);
        return;
    }
    up->on_up = on_idle_event;
    up->watch.is_first = true;
    up->owner = NULL;
    up->idle_since_ns = set->loop->now_ns;
    up->is_readable = false;
    up->prev = NULL;
    up->next = h->idle;
    *(h->idle != NULL ? &h->idle->prev : &h->idle_oldest) = up;
    h->idle = up;
    h->idle_count++;
    set->idle_count++;
    if (!pub_timer_is_set(&set->sweep)) {
        pub_timer_set(&set->loop->wheel, &set->sweep, set->loop->now_ns + SWEEP_EVERY_NS);
    }
}

ssize_t pub_up_recv(struct pub_up *up, void *bytes, size_t size)
{
    ssize_t n = recv(up->watch.fd, bytes, size, 0);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) {
            up->is_readable = false;
            return -EAGAIN;
        }
        return -errno;
    }
    /* A short read has emptied the socket; the next bytes make an edge. Not so the end behind
     * them. */
    if ((size_t)n < size && n > 0 && !up->has_hangup) {
        up->is_readable = false;
    }
    return n;
}
