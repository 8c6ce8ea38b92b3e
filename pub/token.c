#include "pub/token.h"

#include <string.h>
#include <strings.h>

#include "libtrack/base/str.h"

static const char cookie_name[] = "X-Racetrack-Auth";

/* 0, or -1 on a broken escape or no room. */
static int url_decode(struct trk_h1_slice s, char *out, struct trk_h1_slice *ret)
{
    ptrdiff_t n = s.len > TRK_H1_TARGET_MAX ? -1 : trk_url_unescape(s.at, s.len, out);
    *ret = (struct trk_h1_slice){out, n < 0 ? 0 : (size_t)n};
    return n < 0 ? -1 : 0;
}

static struct trk_h1_slice trim(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t')) {
        at++;
    }
    while (end > at && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }
    return (struct trk_h1_slice){at, (size_t)(end - at)};
}

struct trk_h1_slice pub_token_next_cookie(struct trk_h1_slice *header)
{
    const char *end = header->at + header->len;
    const char *stop = memchr(header->at, ';', header->len);
    stop = stop != NULL ? stop : end;
    struct trk_h1_slice pair = trim(header->at, stop);
    stop += stop < end;
    *header = (struct trk_h1_slice){stop, (size_t)(end - stop)};
    return pair;
}

bool pub_token_is_cookie(struct trk_h1_slice pair)
{
    const size_t len = sizeof(cookie_name) - 1;
    const char *equals = memchr(pair.at, '=', pair.len);
    if (equals == NULL) {
        return false;
    }
    struct trk_h1_slice name = trim(pair.at, equals);
    return name.len == len && memcmp(name.at, cookie_name, len) == 0;
}

/* The value of our cookie in one Cookie header (RFC 6265 §4.2.1). */
static bool find_cookie(struct trk_h1_slice header, struct trk_h1_slice *ret)
{
    while (header.len > 0) {
        struct trk_h1_slice pair = pub_token_next_cookie(&header);
        if (!pub_token_is_cookie(pair)) {
            continue;
        }
        const char *value = (const char *)memchr(pair.at, '=', pair.len) + 1;
        *ret = trim(value, pair.at + pair.len);
        if (ret->len >= 2 && ret->at[0] == '"' && ret->at[ret->len - 1] == '"') {
            ret->at++;
            ret->len -= 2;
        }
        return true;
    }
    return false;
}

static int check(struct trk_h1_slice token)
{
    for (size_t i = 0; i < token.len; i++) {
        if (token.at[i] < 0x21 || token.at[i] > 0x7E) {
            return -1;
        }
    }
    return 0;
}

int pub_token_find(const struct trk_h1_request *r, char *scratch, struct pub_token_found *ret)
{
    struct trk_h1_slice auth = {"", 0}, esc = {"", 0}, user = {"", 0}, cookie = {"", 0};
    for (size_t i = 0; i < r->header_count; i++) {
        const struct trk_h1_header *h = &r->headers[i];
        if (h->id == TRK_H1_X_RACETRACK_AUTH) {
            auth = h->value;
        } else if (h->id == TRK_H1_X_RACETRACK_ESC_AUTH) {
            esc = h->value;
        } else if (h->id == TRK_H1_X_RACETRACK_USER_AUTH) {
            user = h->value;
        } else if (h->id == TRK_H1_COOKIE && cookie.len == 0) {
            (void)find_cookie(h->value, &cookie);
        }
    }
    ret->is_cookie = auth.len == 0 && cookie.len > 0;
    if (ret->is_cookie && url_decode(cookie, scratch, &auth) < 0) {
        return -1;
    }
    ret->text = auth.len > 0 ? auth : esc.len > 0 ? esc : user;
    return check(ret->text);
}

bool pub_token_is_cross_site(const struct trk_h1_request *r)
{
    const struct trk_h1_header *site = trk_h1_find(r->headers, r->header_count, "sec-fetch-site");
    const struct trk_h1_header *origin = trk_h1_find(r->headers, r->header_count, "origin");
    const struct trk_h1_header *host = trk_h1_find(r->headers, r->header_count, "host");
    if (site != NULL) {
        return !trk_h1_is(site->value, "same-origin") && !trk_h1_is(site->value, "none");
    }
    if (origin == NULL) {
        return false;
    }
    struct trk_h1_slice authority = origin->value;
    const char *slashes = memmem(authority.at, authority.len, "://", 3);
    if (slashes == NULL || host == NULL) {
        return true; /* also "null" */
    }
    authority.len -= (size_t)(slashes + 3 - authority.at);
    authority.at = slashes + 3;
    return authority.len != host->value.len ||
           strncasecmp(authority.at, host->value.at, authority.len) != 0;
}
