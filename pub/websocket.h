/*
 * websocket.h - the opening handshake (RFC 6455 §4), seen from between: a tunnel carries whatever
 * its ends like past the gateway's checks, so both must have agreed on WebSocket, and on nothing
 * else. Pure; any thread.
 */
#ifndef PUB_WEBSOCKET_H
#define PUB_WEBSOCKET_H

#include "libtrack/http/h1.h"

/* A whole client's handshake, WebSocket the one protocol that it upgrades to? An h2c upgrade would
 * carry requests past the authorisation. */
bool pub_websocket_is_asked(const struct trk_h1_request *r);
/* Is the 101 the answer to that handshake, which `r` is? */
bool pub_websocket_is_answered(const struct trk_h1_request *r,
                               const struct trk_h1_response *answer);

#endif
