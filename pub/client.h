/*
 * client.h - one client connection and the call that it has under way.
 *
 * client.c reads heads and keeps connections alive, call.c finds out what a request wants and gets
 * a connection to its job, exchange.c carries bytes both ways, tunnel.c does so after an upgrade,
 * reply.c answers by itself. pub_client_run is the one driver: it steps the state until nothing
 * more can be done without an event. Worker's thread only.
 */
#ifndef PUB_CLIENT_H
#define PUB_CLIENT_H

#include "pub/flow.h"
#include "pub/path.h"
#include "pub/worker.h"

#define PUB_TRACING_SIZE 129

enum pub_client_state {
    PUB_CLIENT_HEAD,     /* reading a request head, or idle */
    PUB_CLIENT_WAIT,     /* for the table to change: a job that starts, or has moved */
    PUB_CLIENT_CONNECT,  /* to the job */
    PUB_CLIENT_EXCHANGE, /* request out, response in */
    PUB_CLIENT_TUNNEL,   /* after 101 */
    PUB_CLIENT_REPLY,    /* sending an own answer */
    PUB_CLIENT_LINGER,   /* answered; reading until the client has seen it */
    PUB_CLIENT_CLOSED
};
/* Bytes that did not fit into a socket at once; owned. */
struct pub_block {
    char *bytes;
    size_t at, len;
};
/* By what right a tunnel is open. */
struct pub_pass {
    int64_t ends_s; /* of the token, Unix seconds; 0: never */
    unsigned char digest[PUB_DIGEST_SIZE];
    char endpoint[];
};
struct pub_client {
    struct pub_watch watch;
    struct pub_grave grave;
    struct pub_timer timer;
    struct pub_worker *worker;
    struct pub_client *next, *prev;
    enum pub_client_state state;
    bool is_readable, is_writable;
    bool has_fin;   /* the client will send no more (or is gone) */
    bool has_error; /* the connection is dead */
    bool is_head_timed;
    /* the request */
    struct pub_flow in;
    size_t parsed_len; /* bytes already seen by an attempt to parse */
    size_t head_len;
    struct trk_h1_slice line; /* "METHOD target" of the request, in `in`; empty: there is none */
    int minor;
    bool keep_alive, is_head, is_idempotent, is_upgrade, wants_continue;
    struct trk_h1_slice rest; /* raw path and query behind the version; in `in` */
    int64_t started_ns;
    char tracing_id[PUB_TRACING_SIZE];
    char peer[46];
    /* the call */
    struct pub_target *target;
    char *caller;          /* or NULL; owned */
    struct pub_pass *pass; /* of an upgrade, unless the path is public; owned */
    struct pub_up *up;
    size_t hosts_tried;
    int error; /* of the last connection that failed, errno */
    uint8_t moves;
    bool wants_news; /* in WAIT: decides again at each change of the table */
    bool is_cross_site, is_wait_over, has_retried, has_started;
    bool can_send; /* the job takes more of the request */
    struct pub_block to_job;
    uint64_t sent_to_job;
    /* the answer */
    struct pub_flow out;
    bool has_response, job_keeps_alive;
    int status;
    struct pub_block to_client;
};

/* client.c */
void pub_client_new(struct pub_worker *w, int fd, const char *peer);
void pub_client_run(struct pub_client *c);
void pub_client_arm(struct pub_client *c, int64_t timeout_ms);
/* Is there nobody any more who waits for the answer? */
bool pub_client_is_gone(struct pub_client *c);
/* The answer is out: on to the next request, or an orderly close. */
void pub_client_next(struct pub_client *c);
void pub_client_close(struct pub_client *c);
/* Closes so that a cut answer cannot be taken for a whole one. */
void pub_client_abort(struct pub_client *c);
/* Sends a + b (b may be empty), b's sent part is added to *b_sent; the unsent part of `a` is kept
 * in `block`. 0 (*ret_is_full: the socket is full), or -errno. */
int pub_send_two(int fd, struct pub_block *block, const char *a, size_t a_len, const char *b,
                 size_t b_len, size_t *b_sent, bool *ret_is_full);
/* What is left in `block`. */
int pub_send_block(int fd, struct pub_block *block, bool *ret_is_full);
void pub_block_reset(struct pub_block *block);
/* Puts a copy of the bytes behind what is left. */
void pub_block_add(struct pub_block *block, const char *bytes, size_t len);

/* call.c */
void pub_call_dispatch(struct pub_client *c, size_t head_len);
/* The parsed head of c's request, in the worker's scratch. */
const struct trk_h1_request *pub_call_request(struct pub_client *c);
/* The connection to the job broke before an answer came: another try, or an error answer. */
void pub_call_lost(struct pub_client *c, int error);
void pub_call_timeout(struct pub_client *c);
/* Does the table still allow the tunnel? Told of changes from here on. */
bool pub_call_may_go_on(struct pub_client *c);
/* The table has changed: for those who wait. */
void pub_call_news(struct pub_worker *w);
void pub_call_cancel(struct pub_client *c);
/* A line of the access log. */
void pub_call_note(struct pub_client *c, int status);
/* Ends the call's accounts; gives the connection to the job back. */
void pub_call_end(struct pub_client *c, int status, bool can_reuse);

/* head.c: both answer false when the head does not fit. */
struct pub_text;
bool pub_head_request(struct pub_client *c, struct pub_text *t);
bool pub_head_response(struct pub_client *c, const struct trk_h1_response *r, size_t head_len,
                       struct pub_text *t);
/* Header value of the request that is safe to show and forward, or a new UUID. */
void pub_head_tracing_id(struct pub_client *c, struct trk_h1_slice value);

/* exchange.c */
void pub_exchange_begin(struct pub_client *c);
bool pub_exchange_step(struct pub_client *c);
void pub_exchange_timeout(struct pub_client *c);

/* tunnel.c */
/* c->out holds the 101's head and what follows it. */
void pub_tunnel_begin(struct pub_client *c, size_t head_len);
bool pub_tunnel_step(struct pub_client *c);

/* reply.c */
void pub_reply(struct pub_client *c, int status, const char *content_type, const char *body,
               size_t len);
/* {"error": prefix + text, "requestId"}; 503 comes with Retry-After. */
void pub_reply_error(struct pub_client *c, int status, const char *prefix, const char *text);
/* {"error", jobName, jobVersion, jobStatus, requestId, caller} */
void pub_reply_job_error(struct pub_client *c, int status, const char *text, const char *detail);
/* The methods there are: 204, or 405. */
void pub_reply_allow(struct pub_client *c, int status);
bool pub_reply_step(struct pub_client *c);

/* local.c */
void pub_local(struct pub_client *c, const struct pub_route *route);

#endif
