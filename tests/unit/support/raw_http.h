/*
 * raw_http.h - both ends of an HTTP connection byte by byte, for tests of servers and clients.
 *
 * raw_exchange() plays a client that sends exactly these bytes; raw_peer is a server that sends
 * exactly these. All waits have a deadline of RAW_DEADLINE_MS; loopback only.
 */
#ifndef TESTS_UNIT_SUPPORT_RAW_HTTP_H
#define TESTS_UNIT_SUPPORT_RAW_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#define RAW_DEADLINE_MS 10000

int raw_dial(int port);
/* Sends all; false when the peer has closed meanwhile. */
bool raw_send(int fd, const void *bytes, size_t len);

struct raw_answer {
    int status;  /* 0: no answer; the last one's when a 100 came first */
    char *bytes; /* owned; all that came, terminated */
    size_t len;
    char *body;     /* within bytes; of the first final answer, up to the end; "" when none */
    bool is_closed; /* the server closed the connection */
    size_t answers; /* how many status lines came */
    double seconds; /* until the end */
};
/* Reads until the connection ends, or for `quiet_ms` nothing comes. */
struct raw_answer raw_read(int fd, int quiet_ms);
/* Reads one answer with a Content-Length; the connection may stay open. */
struct raw_answer raw_read_one(int fd);
/* Dials, sends, reads to the end (which the request must ask for), hangs up. */
struct raw_answer raw_exchange(int port, const void *bytes, size_t len);
struct raw_answer raw_exchange_text(int port, const char *text);
void raw_answer_fini(struct raw_answer *answer);
/* Value of a header of the answer (any case); "" when missing. Valid until the next call. */
const char *raw_header(const struct raw_answer *answer, const char *name);

/* A server that answers each connection's request with `bytes`, whatever was asked. */
struct raw_peer_options {
    const char *bytes;
    size_t len;
    bool holds;         /* keeps the connection open after the answer */
    bool is_persistent; /* answers request after request on a connection */
    size_t piece;       /* bytes a write; 0: all at once */
};
struct raw_peer;
struct raw_peer *raw_peer_start(const struct raw_peer_options *options);
int raw_peer_port(const struct raw_peer *peer);
/* The request that came last, head and body, terminated. Valid until stop. */
const char *raw_peer_request(struct raw_peer *peer);
size_t raw_peer_connections(struct raw_peer *peer);
void raw_peer_stop(struct raw_peer *peer);

#endif
