#include "libtrack/data/semver.h"

#include <string.h>

#include "libtrack/base/mem.h"

static const char digits[] = "0123456789";
static const char identifier_bytes[] =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-";

/* SemVer §2: digits without leading zeros. Returns what follows, or NULL. */
static const char *parse_number(const char *p, uint64_t *ret)
{
    size_t len = strspn(p, digits);
    if (len == 0 || (len > 1 && p[0] == '0')) {
        return NULL;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < len; i++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(p[i] - '0'), &value)) {
            return NULL;
        }
    }
    *ret = value;
    return p + len;
}

/* SemVer §9, §10: identifiers separated by dots. Returns what follows, or NULL. */
static const char *skip_identifiers(const char *p, bool is_label)
{
    for (;;) {
        size_t len = strspn(p, identifier_bytes);
        bool is_number = strspn(p, digits) >= len;
        if (len == 0 || (is_label && is_number && len > 1 && p[0] == '0')) {
            return NULL;
        }
        p += len;
        if (*p != '.') {
            return p;
        }
        p++;
    }
}

static int bad(struct trk_err *err, const char *text)
{
    return trk_err_set(err, TRK_INVALID,
                       "'%.64s' is not a version: write MAJOR.MINOR.PATCH such as 1.2.3 or "
                       "1.2.3-beta.1 (semver.org), no leading zeros",
                       text);
}

int trk_semver_parse(const char *text, struct trk_semver *ret, struct trk_err *err)
{
    struct trk_semver v = {0};
    const char *p = parse_number(text, &v.major);
    p = p != NULL && *p == '.' ? parse_number(p + 1, &v.minor) : NULL;
    p = p != NULL && *p == '.' ? parse_number(p + 1, &v.patch) : NULL;
    if (p == NULL) {
        return bad(err, text);
    }
    if (*p == '-') {
        const char *label = p + 1;
        p = skip_identifiers(label, true);
        if (p == NULL) {
            return bad(err, text);
        }
        if ((size_t)(p - label) >= sizeof(v.label)) {
            return trk_err_set(err, TRK_INVALID,
                               "the version's label is longer than %zu characters",
                               sizeof(v.label) - 1);
        }
        memcpy(v.label, label, (size_t)(p - label));
    }
    if (*p == '+') {
        p = skip_identifiers(p + 1, false);
    }
    if (p == NULL || *p != '\0') {
        return bad(err, text);
    }
    *ret = v;
    return 0;
}

static int compare_numbers(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

/* SemVer §11.4: numeric identifiers by value and below others, others by ASCII. */
static int compare_identifiers(const char *a, size_t a_len, const char *b, size_t b_len)
{
    bool a_is_number = strspn(a, digits) >= a_len;
    bool b_is_number = strspn(b, digits) >= b_len;
    if (a_is_number != b_is_number) {
        return a_is_number ? -1 : 1;
    }
    if (a_is_number && a_len != b_len) { /* no leading zeros: the longer one is larger */
        return a_len < b_len ? -1 : 1;
    }
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order != 0 ? order : compare_numbers(a_len, b_len);
}

static int compare_labels(const char *a, const char *b)
{
    if (a[0] == '\0' || b[0] == '\0') {
        return (a[0] == '\0') - (b[0] == '\0');
    }
    for (;;) {
        size_t a_len = strcspn(a, ".");
        size_t b_len = strcspn(b, ".");
        int order = compare_identifiers(a, a_len, b, b_len);
        if (order != 0) {
            return order;
        }
        a += a_len;
        b += b_len;
        if (*a == '\0' || *b == '\0') {
            return (*a != '\0') - (*b != '\0');
        }
        a++;
        b++;
    }
}

int trk_semver_compare(const struct trk_semver *a, const struct trk_semver *b)
{
    int order = compare_numbers(a->major, b->major);
    order = order != 0 ? order : compare_numbers(a->minor, b->minor);
    order = order != 0 ? order : compare_numbers(a->patch, b->patch);
    return order != 0 ? order : compare_labels(a->label, b->label);
}

bool trk_semver_is_stable(const struct trk_semver *v)
{
    return v->label[0] == '\0';
}

bool trk_semver_is_wildcard(const char *text)
{
    bool has_x = false;
    for (const char *p = text;; p++) {
        size_t len = strspn(p, digits);
        if (len == 0 && *p == 'x') {
            has_x = true;
            len = 1;
        }
        if (len == 0) {
            return false;
        }
        p += len;
        if (*p != '.') {
            return *p == '\0' && has_x;
        }
    }
}

bool trk_semver_matches(const struct trk_semver *v, const char *pattern)
{
    const uint64_t parts[] = {v->major, v->minor, v->patch};
    if (!trk_semver_is_wildcard(pattern)) {
        return false;
    }
    const char *p = pattern;
    for (size_t i = 0; i < TRK_COUNT(parts); i++) {
        uint64_t wanted = 0;
        const char *end = *p == 'x' ? p + 1 : parse_number(p, &wanted);
        if (end == NULL || (*p != 'x' && wanted != parts[i])) {
            return false; /* "01" names no version */
        }
        if (*end == '\0') {
            return true;
        }
        p = end + 1;
    }
    return false;
}
