#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lifecycle/infra/process/launcher/keeper.h"

enum { BYTES = 16384, PAIRS_MAX = 256, ROUNDS = 16 };

struct relay_end {
    struct pair *pair;
    int fd;
    unsigned events; /* asked of the epoll */
    bool is_watched;
};

/* From ends[i] to ends[1 - i]. */
struct way {
    size_t from, to; /* of what waits in `bytes` */
    bool is_over;    /* its source has ended */
    bool is_shut;    /* and its sink was told */
    char bytes[BYTES];
};

struct pair {
    struct relay_end ends[2]; /* the job, pub */
    struct way ways[2];
    bool is_answered; /* pub has been reached */
    bool is_refused;  /* it cannot be, and the job was told */
    bool is_dead;
    struct pair *next; /* of the dead ones */
};

static size_t pair_count;
static struct pair *dead;

static const char no_pub[] = "HTTP/1.1 503 Service Unavailable\r\n"
                             "Content-Type: application/json\r\n"
                             "Content-Length: 74\r\n"
                             "Retry-After: 1\r\n"
                             "Connection: close\r\n\r\n"
                             "{\"error\":\"the gateway cannot be reached; try again\",\"type\":"
                             "\"Unavailable\"}\n";

/* Freed at the turn's end: events of the same turn may still point to it. */
static void pair_end(struct pair *p)
{
    if (!p->is_dead) {
        p->is_dead = true;
        (void)close(p->ends[0].fd);
        if (p->ends[1].fd >= 0) {
            (void)close(p->ends[1].fd);
        }
        p->next = dead;
        dead = p;
    }
}

/* Moves what can be moved; false: the connection is broken. */
static bool carry(struct pair *p, int i)
{
    struct way *w = &p->ways[i];
    for (int round = 0; round < ROUNDS; round++) {
        if (w->from == w->to && !w->is_over) {
            ssize_t n = recv(p->ends[i].fd, w->bytes, BYTES, MSG_DONTWAIT);
            if (n < 0) {
                return errno == EAGAIN || errno == EINTR;
            }
            w->is_over = n == 0;
            w->from = 0;
            w->to = (size_t)n;
        }
        if (w->from < w->to) {
            ssize_t n = send(p->ends[1 - i].fd, w->bytes + w->from, w->to - w->from,
                             MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0) {
                return errno == EAGAIN || errno == EINTR;
            }
            w->from += (size_t)n;
        }
        if (w->from == w->to && w->is_over) {
            w->is_shut = w->is_shut || shutdown(p->ends[1 - i].fd, SHUT_WR) == 0;
            return true;
        }
    }
    return true;
}

static void ask(int epoll_fd, struct pair *p, int i, bool is_hung_up)
{
    struct relay_end *e = &p->ends[i];
    const struct way *in = &p->ways[i], *back = &p->ways[1 - i];
    unsigned events = (in->from == in->to && !in->is_over ? EPOLLIN : 0U) |
                      (back->from < back->to || (i == 1 && !p->is_answered) ? EPOLLOUT : 0U);
    if (e->is_watched && is_hung_up && events == 0) { /* it would be told again and again */
        (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, e->fd, NULL);
        e->is_watched = false;
        return;
    }
    if (e->is_watched && events == e->events) {
        return;
    }
    struct epoll_event event = {.events = events, .data.ptr = e};
    if (epoll_ctl(epoll_fd, e->is_watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, e->fd, &event) < 0) {
        pair_end(p);
        return;
    }
    e->is_watched = true;
    e->events = events;
}

/* To close now would reset the connection while the job still sends, and the answer would be lost:
 * it is for the job to close. */
static void refuse(int epoll_fd, struct pair *p)
{
    if (p->ends[1].fd >= 0) {
        (void)close(p->ends[1].fd);
        p->ends[1].fd = -1;
    }
    p->is_refused = true;
    (void)send(p->ends[0].fd, no_pub, sizeof(no_pub) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)shutdown(p->ends[0].fd, SHUT_WR);
    p->ways[0].from = p->ways[0].to = 0;
    ask(epoll_fd, p, 0, false);
}

static void drain(struct pair *p)
{
    ssize_t n = recv(p->ends[0].fd, p->ways[0].bytes, BYTES, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        pair_end(p);
    }
}

void relay_on_event(int epoll_fd, struct relay_end *end, unsigned events)
{
    struct pair *p = end->pair;
    if (p->is_dead) {
        return;
    }
    if (p->is_refused) {
        drain(p);
        return;
    }
    int which = end == &p->ends[1];
    if (which == 1 && !p->is_answered) {
        if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
            refuse(epoll_fd, p);
            return;
        }
        p->is_answered = true;
    }
    bool is_fine = (events & EPOLLERR) == 0 && carry(p, 0) && carry(p, 1);
    if (!is_fine || (p->ways[0].is_shut && p->ways[1].is_shut)) {
        pair_end(p);
        return;
    }
    bool is_hung_up = (events & EPOLLHUP) != 0;
    ask(epoll_fd, p, 0, is_hung_up && which == 0);
    if (!p->is_dead) {
        ask(epoll_fd, p, 1, is_hung_up && which == 1);
    }
}

static struct pair *pair_new(int in, int to)
{
    struct pair *p = malloc(sizeof(*p));
    if (p != NULL) {
        memset(p, 0, offsetof(struct pair, ways));
        for (int i = 0; i < 2; i++) {
            p->ends[i] = (struct relay_end){.pair = p, .fd = i == 0 ? in : to};
            p->ways[i].from = p->ways[i].to = 0;
            p->ways[i].is_over = p->ways[i].is_shut = false;
        }
        p->is_answered = p->is_refused = p->is_dead = false;
        pair_count++;
    }
    return p;
}

void relay_accept(int epoll_fd, const struct keeper *k)
{
    while (pair_count < PAIRS_MAX) {
        int in = accept4(k->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (in < 0) {
            return;
        }
        int to = socket(k->pub->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct pair *p = pair_new(in, to);
        if (p == NULL) {
            (void)close(in);
            (void)close(to);
        } else if (to < 0 || (connect(to, (const struct sockaddr *)k->pub, k->pub_len) < 0 &&
                              errno != EINPROGRESS)) {
            refuse(epoll_fd, p);
        } else {
            ask(epoll_fd, p, 1, false); /* the job's bytes wait until pub is reached */
        }
    }
}

bool relay_tidy(void)
{
    while (dead != NULL) {
        struct pair *p = dead;
        dead = p->next;
        free(p);
        pair_count--;
    }
    return pair_count < PAIRS_MAX;
}
