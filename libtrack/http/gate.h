/*
 * gate.h - what stands between the network and libmicrohttpd, which accepts shapes that it must not
 * (design/libraries.md): no byte reaches it unchecked.
 *
 * One thread with epoll has the listening sockets and all client connections. It reads heads with
 * the strict parser (h1.h), frames bodies, and passes each request, written anew, through a socket
 * pair to a connection of libmicrohttpd; the answer comes back the same way. A pair (and with it a
 * thread of libmicrohttpd) is taken when a request is whole, or its head is when the body is
 * larger than 64 KiB, and given back with the end of the answer. So a slow client costs memory
 * only: a head has 15 s that bytes cannot extend, bodies and answers have options.timeout_s plus
 * what 16 KiB/s allow. When there are more requests than options.request_max they wait their
 * turn; those whose body is still to come hold at most half of the places. When there are more
 * connections than descriptors allow, the one that waits longest without a request is closed.
 *
 * Part of the HTTP server: http_server.c starts and stops it.
 */
#ifndef LIBTRACK_HTTP_GATE_H
#define LIBTRACK_HTTP_GATE_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>

#include "libtrack/base/err.h"

struct trk_http_server;
struct http_gate;

/* A connection between gate and libmicrohttpd; both hold a reference. */
struct http_pair;
/* MHD_NotifyConnectionCallback: *socket_ctx is the pair. */
void http_gate_on_connection(void *cls, struct MHD_Connection *mhd, void **socket_ctx,
                             enum MHD_ConnectionNotificationCode code);
/* libmicrohttpd's end. */
int http_pair_fd(const struct http_pair *pair);
/* The client's address; valid while its request runs. */
const char *http_pair_peer(const struct http_pair *pair);

/* From libmicrohttpd's threads. An answer of up to GATE_SHORT_BYTES is carried to the client by the
 * thread that made it, when all of it is in the pair (pass_answer): the gate's thread need not be
 * woken up. Any other one must be announced before its first byte (watch_answer). */
#define GATE_SHORT_BYTES (64 * 1024)
void http_gate_watch_answer(struct http_gate *gate, struct http_pair *pair);
void http_gate_pass_answer(struct http_gate *gate, struct http_pair *pair);

/* Takes the listening sockets (non-blocking), also on failure. server->daemon must run. */
int http_gate_start(struct trk_http_server *server, const int *listeners, size_t count,
                    struct http_gate **ret, struct trk_err *err) TRK_MUST_CHECK;
/* Stops listening and closes connections without a request. Calls http_server_on_idle() when no
 * request is left. */
void http_gate_drain(struct http_gate *gate);
/* Requests that run or wait. */
size_t http_gate_busy(const struct http_gate *gate);
/* Closes all connections; the handlers see it. */
void http_gate_cut(struct http_gate *gate);
/* Cuts, ends the thread, frees. NULL is fine. */
void http_gate_free(struct http_gate *gate);

#endif
