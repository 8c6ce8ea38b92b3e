#include "libtrack/base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "libtrack/base/mem.h"

bool trk_str_has_prefix(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool trk_str_has_suffix(const char *s, const char *suffix)
{
    size_t len = strlen(s);
    size_t suffix_len = strlen(suffix);
    return len >= suffix_len && memcmp(s + len - suffix_len, suffix, suffix_len) == 0;
}

bool trk_str_is_empty(const char *s)
{
    return s == NULL || s[0] == '\0';
}

int trk_parse_int64(const char *s, int64_t min, int64_t max, int64_t *ret_value,
                    struct trk_err *err)
{
    const char *p = s;
    bool is_negative = p[0] == '-';
    if (is_negative) {
        p++;
    }
    int64_t value = 0;
    bool is_number = p[0] != '\0';
    bool overflows = false;
    for (; *p != '\0'; p++) {
        if (*p < '0' || *p > '9') {
            is_number = false;
            break;
        }
        int64_t digit = is_negative ? -(*p - '0') : *p - '0';
        overflows = overflows || __builtin_mul_overflow(value, 10, &value) ||
                    __builtin_add_overflow(value, digit, &value);
    }
    if (!is_number) {
        return trk_err_set(err, TRK_INVALID, "must be a whole number, is '%.64s'", s);
    }
    if (overflows || value < min || value > max) {
        return trk_err_set(err, TRK_INVALID, "must be between %lld and %lld, is %.64s",
                           (long long)min, (long long)max, s);
    }
    *ret_value = value;
    return 0;
}

int trk_parse_bool(const char *s, bool *ret_value, struct trk_err *err)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    for (size_t i = 0; i < TRK_COUNT(yes); i++) {
        if (strcasecmp(s, yes[i]) == 0 || strcasecmp(s, no[i]) == 0) {
            *ret_value = strcasecmp(s, yes[i]) == 0;
            return 0;
        }
    }
    return trk_err_set(err, TRK_INVALID, "must be true or false, is '%.64s'", s);
}

static bool is_unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

int trk_url_encode(struct trk_buf *buf, const char *s, size_t len, const char *keep)
{
    static const char digits[] = "0123456789ABCDEF";
    int rc = 0;
    for (size_t i = 0; i < len && rc == 0; i++) {
        unsigned char c = (unsigned char)s[i];
        if (is_unreserved(c) || (keep != NULL && c != '\0' && strchr(keep, c) != NULL)) {
            rc = trk_buf_addc(buf, (char)c);
        } else {
            char escape[3] = {'%', digits[c >> 4], digits[c & 15]};
            rc = trk_buf_add(buf, escape, sizeof(escape));
        }
    }
    return rc;
}

ptrdiff_t trk_url_unescape(const char *s, size_t len, char *out)
{
    char *at = out;
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (c == '%') {
            int high = i + 2 < len ? trk_hex_value(s[i + 1]) : -1;
            int low = high >= 0 ? trk_hex_value(s[i + 2]) : -1;
            if (low < 0) {
                return -1 - (ptrdiff_t)i;
            }
            c = (char)(high << 4 | low);
            i += 2;
        }
        *at++ = c;
    }
    return at - out;
}

int trk_url_decode(const char *s, size_t len, char **ret, struct trk_err *err)
{
    trk_autofree char *out = trk_xmalloc(len + 1);
    ptrdiff_t n = trk_url_unescape(s, len, out);
    if (n < 0) {
        return trk_err_set(
            err, TRK_INVALID,
            "broken %%-escape at byte %td: two hexadecimal digits must follow a '%%'", -n);
    }
    if (memchr(out, '\0', (size_t)n) != NULL) {
        return trk_err_set(err, TRK_INVALID, "a NUL character is not allowed");
    }
    out[n] = '\0';
    *ret = TRK_STEAL(out);
    return 0;
}

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int trk_base64_encode(struct trk_buf *buf, const void *bytes, size_t len)
{
    const unsigned char *in = bytes;
    size_t groups = len / 3 + (len % 3 != 0);
    size_t out_len;
    char *out = NULL;
    if (!__builtin_mul_overflow(groups, 4, &out_len)) {
        out = trk_buf_reserve(buf, out_len);
    }
    if (out == NULL) {
        buf->failed = true;
        return TRK_TOO_LARGE;
    }
    size_t i = 0;
    for (; i + 3 <= len; i += 3, out += 4) {
        uint32_t v = (uint32_t)in[i] << 16 | (uint32_t)in[i + 1] << 8 | in[i + 2];
        out[0] = base64_digits[v >> 18];
        out[1] = base64_digits[v >> 12 & 63];
        out[2] = base64_digits[v >> 6 & 63];
        out[3] = base64_digits[v & 63];
    }
    if (i < len) {
        uint32_t v = (uint32_t)in[i] << 16 | (i + 1 < len ? (uint32_t)in[i + 1] << 8 : 0);
        out[0] = base64_digits[v >> 18];
        out[1] = base64_digits[v >> 12 & 63];
        out[2] = i + 1 < len ? base64_digits[v >> 6 & 63] : '=';
        out[3] = '=';
    }
    trk_buf_commit(buf, out_len);
    return 0;
}

static int base64_value(unsigned char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int trk_base64_feed(struct trk_base64 *decoder, const char *s, size_t len, void *out,
                    size_t *ret_len, struct trk_err *err)
{
    unsigned char *to = out;
    for (size_t i = 0; i < len; i++) {
        int value = base64_value((unsigned char)s[i]);
        unsigned place = decoder->seen++ % 4;
        bool is_padding = s[i] == '=' && place >= 2;
        if ((value < 0 && !is_padding) || (decoder->padding > 0 && !is_padding)) {
            return trk_err_set(err, TRK_INVALID, "not base64: bad character at byte %zu",
                               decoder->seen);
        }
        if (is_padding) {
            /* what is left over must be zero: one text for one content */
            uint32_t spare_mask = decoder->padding > 0 ? 0 : place == 2 ? 15 : 3;
            decoder->padding++;
            if ((decoder->bits & spare_mask) != 0) {
                return trk_err_set(err, TRK_INVALID, "not base64: stray bits before the padding");
            }
            continue;
        }
        decoder->bits = decoder->bits << 6 | (uint32_t)value;
        if (place != 0) {
            *to++ = (unsigned char)(decoder->bits >> (6 - place * 2));
        }
    }
    *ret_len = (size_t)(to - (unsigned char *)out);
    return 0;
}

int trk_base64_end(const struct trk_base64 *decoder, struct trk_err *err)
{
    return decoder->seen % 4 == 0
               ? 0
               : trk_err_set(err, TRK_INVALID,
                             "not base64: %zu characters, must be a multiple of 4 (padded with "
                             "'=')",
                             decoder->seen);
}

int trk_base64_decode(const char *s, size_t len, void **ret, size_t *ret_len, struct trk_err *err)
{
    struct trk_base64 decoder = {0};
    trk_autofree unsigned char *out = trk_xmalloc(len / 4 * 3 + 4);
    size_t n = 0;
    int rc = trk_base64_feed(&decoder, s, len, out, &n, err);
    rc = rc == 0 ? trk_base64_end(&decoder, err) : rc;
    if (rc < 0) {
        return rc;
    }
    out[n] = '\0';
    *ret = TRK_STEAL(out);
    *ret_len = n;
    return 0;
}

void trk_hex(const void *bytes, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *in = bytes;
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[in[i] >> 4];
        *out++ = digits[in[i] & 15];
    }
    *out = '\0';
}

/* Length of the valid sequence at `s`, 0 for none (RFC 3629 §4: no overlong forms, no surrogates).
 */
size_t trk_utf8_sequence(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    if (len == 0) {
        return 0;
    }
    unsigned char c = s[0];
    if (c < 0x80) {
        return 1;
    }
    size_t need = c >= 0xC2 && c <= 0xDF   ? 2
                  : (c & 0xF0) == 0xE0     ? 3
                  : c >= 0xF0 && c <= 0xF4 ? 4
                                           : 0;
    if (need == 0 || need > len) {
        return 0;
    }
    unsigned char low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    unsigned char high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    if (s[1] < low || s[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < need; i++) {
        if ((s[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return need;
}

bool trk_utf8_is_valid(const char *s, size_t len)
{
    while (len > 0) {
        size_t n = trk_utf8_sequence(s, len);
        if (n == 0) {
            return false;
        }
        s += n;
        len -= n;
    }
    return true;
}

void trk_utf8_repair(char *s, size_t len)
{
    while (len > 0) {
        size_t n = *s != '\0' ? trk_utf8_sequence(s, len) : 0;
        if (n == 0) {
            *s = '?';
            n = 1;
        }
        s += n;
        len -= n;
    }
}

/* The end of the escape sequence that starts at `s` (an ESC). A sequence never swallows a line
 * break: what was cut off by one ends there. */
static const char *ansi_end(const char *s)
{
    const char *p = s + 1;
    if (*p == '[') { /* CSI: parameters and intermediates 0x20-0x3F, then one final byte */
        p++;
        while (*p >= 0x20 && *p <= 0x3F) {
            p++;
        }
        return *p >= 0x40 && *p <= 0x7E ? p + 1 : p;
    }
    if (*p == ']') { /* OSC: up to BEL or ESC \ */
        while (*p != '\0' && *p != '\n' && *p != '\a' && *p != '\x1b') {
            p++;
        }
        if (p[0] == '\x1b' && p[1] == '\\') {
            return p + 2;
        }
        return *p == '\a' ? p + 1 : p;
    }
    while (*p >= 0x20 && *p <= 0x2F) { /* nF: intermediates, then one final byte */
        p++;
    }
    return *p >= 0x30 && *p <= 0x7E ? p + 1 : p;
}

void trk_strip_ansi(char *s)
{
    char *out = s;
    const char *p = s;
    while (*p != '\0') {
        if (*p == '\x1b') {
            p = ansi_end(p);
        } else if ((unsigned char)p[0] == 0xC2 && (unsigned char)p[1] >= 0x80 &&
                   (unsigned char)p[1] <= 0x9F) {
            p += 2; /* U+0080 to U+009F: a terminal may take U+009B for ESC [ */
        } else {
            *out++ = *p++;
        }
    }
    *out = '\0';
}

#define NEAREST_LEN_MAX 64

static char folded(char c)
{
    return c == '-' ? '_' : c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t smaller = a < b ? a : b;
    return smaller < c ? smaller : c;
}

/* Optimal string alignment distance; case and '-'/'_' do not count. Both at most NEAREST_LEN_MAX.
 */
static size_t edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t rows[3][NEAREST_LEN_MAX + 1];
    size_t *before = rows[0], *previous = rows[1], *current = rows[2];
    for (size_t j = 0; j <= b_len; j++) {
        previous[j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        current[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            bool is_same = folded(a[i - 1]) == folded(b[j - 1]);
            current[j] = min3(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + !is_same);
            if (i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) &&
                folded(a[i - 2]) == folded(b[j - 1]) && before[j - 2] + 1 < current[j]) {
                current[j] = before[j - 2] + 1;
            }
        }
        size_t *oldest = before;
        before = previous;
        previous = current;
        current = oldest;
    }
    return previous[b_len];
}

struct trk_size_text trk_size_text(uint64_t bytes)
{
    static const struct {
        unsigned shift;
        const char *unit;
    } units[] = {{20, "MiB"}, {10, "KiB"}};
    struct trk_size_text out;
    for (size_t i = 0; i < TRK_COUNT(units); i++) {
        if (bytes != 0 && bytes % (UINT64_C(1) << units[i].shift) == 0) {
            (void)snprintf(out.text, sizeof(out.text), "%llu %s",
                           (unsigned long long)(bytes >> units[i].shift), units[i].unit);
            return out;
        }
    }
    (void)snprintf(out.text, sizeof(out.text), "%llu bytes", (unsigned long long)bytes);
    return out;
}

const char *trk_str_nearest(const char *s, const char *const *candidates, size_t count)
{
    size_t len = strlen(s);
    if (len == 0 || len > NEAREST_LEN_MAX) {
        return NULL;
    }
    const char *best = NULL;
    size_t best_distance = len / 3 > 2 ? len / 3 + 1 : len > 2 ? 3 : 2; /* must be below */
    for (size_t i = 0; i < count; i++) {
        size_t candidate_len = strlen(candidates[i]);
        if (candidate_len > NEAREST_LEN_MAX) {
            continue;
        }
        size_t distance = edit_distance(s, len, candidates[i], candidate_len);
        /* "requirements" for "requirements_path" */
        size_t shared = len < candidate_len ? len : candidate_len;
        if (shared >= 4 && distance > 2 && strncasecmp(s, candidates[i], shared) == 0) {
            distance = 2;
        }
        if (distance < best_distance) {
            best = candidates[i];
            best_distance = distance;
        }
    }
    return best;
}
