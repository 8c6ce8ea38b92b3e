/*
 * token.h - the caller's token among the headers of a request.
 */
#ifndef PUB_TOKEN_H
#define PUB_TOKEN_H

#include "libtrack/http/h1.h"

/* Header X-Racetrack-Auth, else the cookie of that name (URL-decoded into `scratch`, which has room
 * for TRK_H1_TARGET_MAX bytes), else X-Racetrack-Esc-Auth, else X-Racetrack-User-Auth. *ret is
 * empty when there is none; valid as long as the request and scratch. -1: it has characters that
 * cannot stand in a header. */
int pub_token_find(const struct trk_h1_request *r, char *scratch, struct trk_h1_slice *ret);

#endif
