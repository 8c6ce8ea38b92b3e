/*
 * token.h - the caller's token among the headers of a request.
 */
#ifndef PUB_TOKEN_H
#define PUB_TOKEN_H

#include "libtrack/http/h1.h"

struct pub_token_found {
    struct trk_h1_slice text; /* empty: there is none */
    bool is_cookie;           /* a browser sent it by itself */
};
/* Header X-Racetrack-Auth, else the cookie of that name (URL-decoded into `scratch`, which has room
 * for TRK_H1_TARGET_MAX bytes), else X-Racetrack-Esc-Auth, else X-Racetrack-User-Auth. Valid as
 * long as the request and scratch. -1: it has characters that cannot stand in a header. */
int pub_token_find(const struct trk_h1_request *r, char *scratch, struct pub_token_found *ret);
/* Takes the first pair, without white space around it, off a Cookie field's value. */
struct trk_h1_slice pub_token_next_cookie(struct trk_h1_slice *header);
/* Is the pair the cookie of the token? */
bool pub_token_is_cookie(struct trk_h1_slice pair);
/* Did a page of another origin cause the request (Fetch §3.2.5 Sec-Fetch-Site, else RFC 6454
 * Origin against Host)? False when nothing says so. */
bool pub_token_is_cross_site(const struct trk_h1_request *r);

#endif
