/*
 * server.h - the threads of pub: listeners, accepting, and an orderly end.
 *
 *     if (pub_server_start(&config, &server, err) < 0) ...
 *     wait for a signal;
 *     pub_server_stop(server);
 */
#ifndef PUB_SERVER_H
#define PUB_SERVER_H

#include "pub/worker.h"

struct pub_server;
/* Borrows the config and the token until stop. *ret owned. */
int pub_server_start(const struct pub_config *config, const char *internal_token,
                     struct pub_server **ret, struct trk_err *err) TRK_MUST_CHECK;
int pub_server_port(const struct pub_server *server);
/* Stops accepting, lets calls finish for up to 4.5 s, ends the threads. Frees. */
void pub_server_stop(struct pub_server *server);

#endif
