/*
 * str.h - small string helpers. Any thread.
 */
#ifndef LIBTRACK_STR_H
#define LIBTRACK_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"

bool trk_str_has_prefix(const char *s, const char *prefix);
bool trk_str_has_suffix(const char *s, const char *suffix);
bool trk_str_is_empty(const char *s); /* NULL or "" */
/* Whole-string decimal integer within [min, max]; TRK_INVALID otherwise. */
int trk_parse_int64(const char *s, int64_t min, int64_t max, int64_t *ret_value,
                    struct trk_err *err) TRK_MUST_CHECK;
/* true|false|yes|no|on|off|1|0, any case. */
int trk_parse_bool(const char *s, bool *ret_value, struct trk_err *err) TRK_MUST_CHECK;

/* RFC 3986 §2.1. Encodes all but unreserved characters (and those of `keep`, may be NULL). */
int trk_url_encode(struct trk_buf *buf, const char *s, size_t len, const char *keep);
/* Decodes %XX; TRK_INVALID on a broken escape or an encoded NUL. Returns owned in *ret. */
/* Undoes %-escapes into `out` (as many bytes at most; may be `s`, not terminated): the length, or
 * -1 - i when the escape at byte i is broken. Any byte may come out. */
ptrdiff_t trk_url_unescape(const char *s, size_t len, char *out);
/* 0 to 15; -1 for what is no hexadecimal digit. */
static inline int trk_hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}
/* The same, owned and terminated, without NUL. */
int trk_url_decode(const char *s, size_t len, char **ret, struct trk_err *err) TRK_MUST_CHECK;

/* RFC 4648 §4. Encode appends; decode is strict (padding required, no white space) and TRK_INVALID
 * otherwise; *ret owned, terminated. */
int trk_base64_encode(struct trk_buf *buf, const void *bytes, size_t len);
int trk_base64_decode(const char *s, size_t len, void **ret, size_t *ret_len,
                      struct trk_err *err) TRK_MUST_CHECK;
/* The same in pieces. Begin with {0}; a feed writes at most `len` bytes to `out`; the end says
 * whether the last group is whole. */
struct trk_base64 {
    uint32_t bits;
    unsigned padding;
    size_t seen; /* characters */
};
int trk_base64_feed(struct trk_base64 *decoder, const char *s, size_t len, void *out,
                    size_t *ret_len, struct trk_err *err) TRK_MUST_CHECK;
int trk_base64_end(const struct trk_base64 *decoder, struct trk_err *err) TRK_MUST_CHECK;

void trk_hex(const void *bytes, size_t len, char *out /* 2*len+1 */);
/* Length of the UTF-8 sequence (RFC 3629) that s begins with, 1 to 4; 0: it begins with none. */
size_t trk_utf8_sequence(const char *s, size_t len);
bool trk_utf8_is_valid(const char *s, size_t len);
/* Each byte that is not part of valid UTF-8 becomes '?', in place; so does NUL. */
void trk_utf8_repair(char *s, size_t len);
/* A size as people say it: "96 MiB", "256 KiB", or "1500 bytes" when it is no whole number of them:
 *     trk_err_set(err, TRK_TOO_LARGE, "more than %s", trk_size_text(limit).text); */
struct trk_size_text {
    char text[32];
};
struct trk_size_text trk_size_text(uint64_t bytes);
/* Removes ANSI escape sequences (ECMA-48 CSI and OSC) and C1 control characters in place. */
void trk_strip_ansi(char *s);
/* The candidate that `s` is probably a misspelling of (edit distance; case and '-' for '_' do not
 * count; a beginning of it), or NULL. Borrows from `candidates`. */
const char *trk_str_nearest(const char *s, const char *const *candidates, size_t count);

#endif
