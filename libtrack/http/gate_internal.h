/*
 * gate_internal.h - shared by gate.c (thread, accepting, limits), gate_conn.c (a connection until
 * its request can be passed on) and gate_exchange.c (the request at libmicrohttpd). Everything is
 * under gate->lock, which the gate's thread gives up only to wait for events.
 */
#ifndef LIBTRACK_HTTP_GATE_INTERNAL_H
#define LIBTRACK_HTTP_GATE_INTERNAL_H

#include <stdatomic.h>
#include <sys/queue.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/clock.h"
#include "libtrack/http/gate.h"
#include "libtrack/http/h1.h"
#include "libtrack/http/http_internal.h"

#define GATE_READ_BYTES (64 * 1024)
/* Requests with bodies up to this size are passed on when they are whole. */
#define GATE_HOLD_BYTES (64 * 1024)
/* What all connections together may hold of requests that are not whole. */
#define GATE_HELD_MAX (64UL << 20)
#define GATE_IN_MAX   (GATE_HOLD_BYTES + TRK_H1_HEAD_MAX + GATE_READ_BYTES)
#define GATE_EVENTS   (EPOLLIN | EPOLLRDHUP | EPOLLET)

struct gate_watch {
    int fd; /* -1: closed */
    enum gate_kind { GATE_WAKE, GATE_LISTENER, GATE_CLIENT, GATE_PAIR } kind;
    bool is_readable, is_writable;
    bool has_fin, has_error;
};
/* What a socket did not take at once. */
struct gate_block {
    char *bytes; /* NULL: nothing */
    size_t at, len;
};
struct gate_flow {
    enum trk_h1_body body;
    uint64_t left;
    struct trk_h1_chunked chunked;
    bool is_done;
};
struct http_pair {
    struct gate_watch watch; /* the gate's end */
    uint32_t events;         /* that are reported */
    atomic_int refs;         /* gate's and libmicrohttpd's */
    int mhd_fd;              /* libmicrohttpd's end */
    struct gate_conn *conn;  /* NULL: idle */
    struct http_pair *next_grave, *next_answered;
    atomic_bool is_answered; /* in gate->answered */
    TAILQ_ENTRY(http_pair) idle;
    char peer[64]; /* written before a request's first byte is sent */
};
enum gate_state {
    GATE_HEAD,    /* idle, or a request is on its way in */
    GATE_WAITING, /* for a place */
    GATE_RUNNING, /* libmicrohttpd has it */
    GATE_LINGER,  /* answered; reading until the client has seen it */
    GATE_CLOSED
};
struct gate_conn {
    struct gate_watch watch;
    struct http_gate *gate;
    TAILQ_ENTRY(gate_conn) all, turn;
    struct gate_conn *next_grave;
    enum gate_state state;
    bool is_again;       /* in gate->again; `turn` serves both queues, at different times */
    int64_t deadline_ns; /* 0: none */
    char peer[64];
    /* the request */
    struct trk_buf in; /* bytes that were not passed on yet */
    size_t need;       /* of them, before looking again makes sense */
    size_t scanned;    /* a chunked body is checked up to here while it is held */
    struct gate_flow up;
    int64_t begun_ns;
    uint64_t up_bytes;
    bool is_timed, keep_alive, is_head, is_upload;
    /* at libmicrohttpd */
    struct http_pair *pair;
    bool is_refused; /* the pair takes no more of the request */
    bool is_fin_told;
    struct gate_block to_mhd;
    /* the answer */
    struct trk_buf head; /* a part of its head */
    struct gate_flow down;
    bool has_answer, pair_keeps_alive;
    struct gate_block to_client;
    int64_t stalled_ns; /* since when the client lets us wait */
    uint64_t stalled_bytes;
};
TAILQ_HEAD(gate_conns, gate_conn);
struct http_gate {
    struct trk_http_server *server;
    pthread_t thread;
    pthread_mutex_t lock;
    _Atomic(struct http_pair *) answered; /* a stack, without the lock */
    bool is_guest;                        /* another thread is at work: it starts no requests */
    int epoll_fd;
    struct gate_watch wake;
    struct gate_watch listeners[2];
    size_t listener_count;
    bool is_deaf; /* no descriptor is left: does not accept until the next tick */
    atomic_int command;
    atomic_size_t busy;
    bool is_draining;
    int64_t now_ns, tick_ns, trim_ns;
    struct gate_conns all;                 /* in the order of their last request */
    struct gate_conns waiting[2];          /* for a place: whole requests, uploads */
    struct gate_conns again;               /* had their turn and have more to do */
    TAILQ_HEAD(pair_list, http_pair) idle; /* last used first */
    size_t conn_count, conn_max, idle_count, running, running_max, uploads;
    size_t held_bytes;
    struct gate_conn *graves; /* freed after the turn: events may still point at them */
    struct http_pair *pair_graves;
    struct trk_h1_request request;
    struct trk_h1_response response;
    char scratch[GATE_READ_BYTES];
    char text[2 * GATE_IN_MAX];
};

/* -- gate.c -- */
int gate_watch_add(struct http_gate *gate, struct gate_watch *watch);
/* What is reported of a pair beside its end: 0, GATE_EVENTS, with EPOLLOUT when the pair is full
 * (unlike TCP's, its end would be writable anew each time the other end has read). */
void gate_watch_pair(struct http_gate *gate, struct http_pair *pair, uint32_t events);
/* An idle pair or a new one; NULL when there is no descriptor or thread. */
struct http_pair *gate_pair_take(struct http_gate *gate, struct gate_conn *c);
void gate_pair_give(struct http_gate *gate, struct http_pair *pair, bool can_reuse);
/* Is there a place for a request? */
bool gate_has_place(const struct http_gate *gate, bool is_upload);

/* Patience with a client that neither sends nor takes anything. */
static inline int64_t gate_limit_ns(const struct http_gate *gate)
{
    return gate->server->options.timeout_s * TRK_NS_PER_S;
}

/* -- gate_conn.c: sockets -- */
/* Sends, keeping in `block` what the socket does not take now. False when nobody is there. */
bool gate_send(struct gate_watch *watch, struct gate_block *block, const char *bytes, size_t len);
/* Sends what is kept: bytes sent, or -1 when nobody is there. */
ssize_t gate_send_kept(struct gate_watch *watch, struct gate_block *block);
void gate_block_drop(struct gate_block *block);
/* Into the gate's scratch: bytes, 0 for nothing now, -1 at the end. */
ssize_t gate_receive(struct http_gate *gate, struct gate_watch *watch);
/* More of the request, behind what is in c->in. */
ssize_t gate_receive_request(struct gate_conn *c);
/* Drops the first bytes of c->in. */
void gate_consume(struct gate_conn *c, size_t len);

/* -- gate_conn.c: a connection's life -- */
void gate_conn_new(struct http_gate *gate, int fd, const struct sockaddr *peer);
void gate_conn_run(struct gate_conn *c);
/* Its deadline is over. */
void gate_conn_expire(struct gate_conn *c);
void gate_conn_set_state(struct gate_conn *c, enum gate_state state);
/* Ready for the next request. */
void gate_conn_await(struct gate_conn *c);
/* Answers a request that libmicrohttpd does not get (any more), and ends the connection. */
void gate_conn_refuse(struct gate_conn *c, int status, const char *why);
/* The last answer is out: waits until the client has seen it. */
void gate_conn_linger(struct gate_conn *c);
/* Closes so that a cut answer is not taken for a whole one. */
void gate_conn_abort(struct gate_conn *c);
void gate_conn_close(struct gate_conn *c);
/* Ends what it has to do with libmicrohttpd. */
void gate_conn_leave_pair(struct gate_conn *c, bool can_reuse);
void gate_conn_upload_over(struct gate_conn *c);

/* -- gate_exchange.c -- */
/* Passes a waiting request on; there is a place. */
void gate_exchange_start(struct gate_conn *c);
/* True when something went on. */
bool gate_exchange_step(struct gate_conn *c);
/* The head as libmicrohttpd gets it, with nothing in it that two parsers could read in two ways,
 * and what lies in c->in of the body (dropped there), framed anew; NULL when it is malformed.
 * Return the end of what they wrote. */
char *gate_put_head(char *at, const struct trk_h1_request *r);
char *gate_put_body(struct gate_conn *c, char *at);
/* 0: none. */
int64_t gate_exchange_deadline(const struct gate_conn *c);

#endif
