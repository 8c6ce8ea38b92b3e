#include "pub/resolver.h"

#include <ares.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/err.h"
#include "libtrack/base/mem.h"

#define TRY_MS     1000
#define TRIES      3
#define SERVERS_NS (60 * TRK_NS_PER_S)

/* A socket of c-ares. */
struct dns_socket {
    struct pub_watch watch;
    struct pub_grave grave;
    struct dns_socket *next;
    struct pub_resolver *resolver;
};
struct pub_resolver {
    struct pub_loop *loop;
    const char *servers;
    ares_channel channel; /* NULL until the first question */
    int64_t made_ns;
    struct pub_timer timer;
    struct dns_socket *sockets;
    unsigned open;
};

static pthread_once_t library_once = PTHREAD_ONCE_INIT;

static void init_library(void)
{
    (void)ares_library_init(ARES_LIB_INIT_ALL);
}

static void arm(struct pub_resolver *r)
{
    struct timeval left;
    if (ares_timeout(r->channel, NULL, &left) == NULL) {
        pub_timer_cancel(&r->timer);
        return;
    }
    int64_t ns = (int64_t)left.tv_sec * TRK_NS_PER_S + (int64_t)left.tv_usec * 1000;
    pub_timer_set(&r->loop->wheel, &r->timer, r->loop->now_ns + ns);
}

static void on_timer(struct pub_timer *timer)
{
    struct pub_resolver *r = PUB_CONTAINER(timer, struct pub_resolver, timer);
    ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm(r);
}

static void on_event(struct pub_watch *watch, uint32_t events)
{
    struct pub_resolver *r = PUB_CONTAINER(watch, struct dns_socket, watch)->resolver;
    bool is_readable = (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0;
    bool is_writable = (events & EPOLLOUT) != 0;
    int fd = watch->fd; /* may be gone after this */
    ares_process_fd(r->channel, is_readable ? fd : ARES_SOCKET_BAD,
                    is_writable ? fd : ARES_SOCKET_BAD);
    arm(r);
}

/* What c-ares waits for on a socket of its own; neither: it closes it. */
static void on_state(void *ctx, ares_socket_t fd, int readable, int writable)
{
    struct pub_resolver *r = ctx;
    uint32_t events = (readable ? (uint32_t)EPOLLIN : 0) | (writable ? (uint32_t)EPOLLOUT : 0);
    struct dns_socket **p = &r->sockets;
    while (*p != NULL && (*p)->watch.fd != fd) {
        p = &(*p)->next;
    }
    struct dns_socket *s = *p;
    if (s == NULL && events != 0) {
        s = trk_xcalloc(1, sizeof(*s));
        s->watch = (struct pub_watch){.fd = fd, .on_event = on_event};
        s->resolver = r;
        s->next = r->sockets;
        r->sockets = s;
        (void)pub_loop_add(r->loop, &s->watch, events); /* unwatched it runs into its time-out */
    } else if (s != NULL && events != 0) {
        pub_loop_change(r->loop, &s->watch, events);
    } else if (s != NULL) {
        *p = s->next;
        pub_loop_release(r->loop, &s->watch);
        pub_loop_bury(r->loop, &s->grave, s);
    }
}

static const struct ares_addrinfo_node *choose(const struct ares_addrinfo *found)
{
    const struct ares_addrinfo_node *best = NULL;
    for (const struct ares_addrinfo_node *n = found->nodes; n != NULL; n = n->ai_next) {
        if (n->ai_family == AF_INET) {
            return n;
        }
        best = best == NULL && n->ai_family == AF_INET6 ? n : best;
    }
    return best;
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *found)
{
    struct pub_resolution *q = arg;
    (void)timeouts;
    const struct ares_addrinfo_node *node = status == ARES_SUCCESS && found != NULL ? choose(found)
                                                                                    : NULL;
    if (node != NULL) {
        memcpy(&q->addr, node->ai_addr, node->ai_addrlen);
        q->addr_len = node->ai_addrlen;
    }
    if (found != NULL) {
        ares_freeaddrinfo(found);
    }
    q->resolver->open--;
    pub_loop_post(q->resolver->loop, &q->message);
}

/* Without a channel questions have no answers. */
static void make_channel(struct pub_resolver *r)
{
    struct ares_options options = {
        .timeout = TRY_MS, .tries = TRIES, .sock_state_cb = on_state, .sock_state_cb_data = r};
    (void)pthread_once(&library_once, init_library);
    if (ares_init_options(&r->channel, &options,
                          ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB) !=
        ARES_SUCCESS) {
        r->channel = NULL;
        return;
    }
    r->made_ns = r->loop->now_ns;
    if (r->servers != NULL) {
        (void)ares_set_servers_ports_csv(r->channel, r->servers);
    }
}

struct pub_resolver *pub_resolver_new(struct pub_loop *loop, const char *servers)
{
    struct pub_resolver *r = trk_xcalloc(1, sizeof(*r));
    r->loop = loop;
    r->servers = servers;
    r->timer.on_fire = on_timer;
    return r;
}

void pub_resolver_free(struct pub_resolver *r)
{
    if (r == NULL) {
        return;
    }
    pub_timer_cancel(&r->timer);
    if (r->channel != NULL) {
        ares_destroy(r->channel);
    }
    trk_assert(r->open == 0 && r->sockets == NULL);
    free(r);
}

void pub_resolve(struct pub_resolver *r, struct pub_resolution *question)
{
    const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC,
                                              .ai_socktype = SOCK_STREAM,
                                              .ai_flags = ARES_AI_NUMERICSERV | ARES_AI_NOSORT};
    if (r->channel != NULL && r->open == 0 && r->loop->now_ns - r->made_ns > SERVERS_NS) {
        ares_destroy(r->channel);
        r->channel = NULL;
    }
    if (r->channel == NULL) {
        make_channel(r);
    }
    question->resolver = r;
    r->open++;
    if (r->channel == NULL) {
        on_answer(question, ARES_ENOTINITIALIZED, 0, NULL);
        return;
    }
    ares_getaddrinfo(r->channel, question->host, question->port, &hints, on_answer, question);
    arm(r);
}
