/*
 * url.h - addresses of servers as people type them. Any thread.
 */
#ifndef CLIENT_URL_H
#define CLIENT_URL_H

#include <stdbool.h>

#include "libtrack/base/err.h"

/* "localhost:7002" -> "https://localhost:7002/lifecycle": adds https:// when no scheme is given and
 * /lifecycle when there is no path, drops a trailing slash. Only http and https, no user name or
 * password, no query: TRK_INVALID. *ret owned. */
int url_complete(const char *text, char **ret, struct trk_err *err) TRK_MUST_CHECK;
/* Does its host mean this machine (localhost, 127.0.0.0/8, ::1)? */
bool url_is_local(const char *url);
/* Does the text look like an address, rather than a mistyped alias? */
bool url_looks_like_one(const char *text);

#endif
