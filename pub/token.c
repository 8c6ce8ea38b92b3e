#include "pub/token.h"

#include <string.h>

static const char cookie_name[] = "X-Racetrack-Auth";

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 0, or -1 on a broken escape or no room. */
static int url_decode(struct trk_h1_slice s, char *out, struct trk_h1_slice *ret)
{
    if (s.len > TRK_H1_TARGET_MAX) {
        return -1;
    }
    ret->at = out;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.at[i];
        if (c == '%') {
            int high = i + 2 < s.len ? hex_value(s.at[i + 1]) : -1;
            int low = high >= 0 ? hex_value(s.at[i + 2]) : -1;
            if (low < 0) {
                return -1;
            }
            c = (char)(high << 4 | low);
            i += 2;
        }
        *out++ = c;
    }
    ret->len = (size_t)(out - ret->at);
    return 0;
}

/* The value of our cookie in one Cookie header (RFC 6265 §4.2.1). */
static bool find_cookie(struct trk_h1_slice header, struct trk_h1_slice *ret)
{
    const char *p = header.at;
    const char *end = p + header.len;
    const size_t name_len = sizeof(cookie_name) - 1;
    while (p < end) {
        while (p < end && (*p == ' ' || *p == ';')) {
            p++;
        }
        const char *stop = memchr(p, ';', (size_t)(end - p));
        stop = stop != NULL ? stop : end;
        size_t len = (size_t)(stop - p);
        if (len > name_len && p[name_len] == '=' && memcmp(p, cookie_name, name_len) == 0) {
            ret->at = p + name_len + 1;
            ret->len = len - name_len - 1;
            while (ret->len > 0 && ret->at[ret->len - 1] == ' ') {
                ret->len--;
            }
            if (ret->len >= 2 && ret->at[0] == '"' && ret->at[ret->len - 1] == '"') {
                ret->at++;
                ret->len -= 2;
            }
            return true;
        }
        p = stop;
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

int pub_token_find(const struct trk_h1_request *r, char *scratch, struct trk_h1_slice *ret)
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
    if (auth.len == 0 && cookie.len > 0 && url_decode(cookie, scratch, &auth) < 0) {
        return -1;
    }
    *ret = auth.len > 0 ? auth : esc.len > 0 ? esc : user;
    return check(*ret);
}
