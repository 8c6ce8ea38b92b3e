#include "libtrack/http/h1.h"

#include <string.h>
#include <strings.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* What a byte may be part of. */
enum byte_class {
    TCHAR = 1,      /* token, RFC 9110 §5.6.2 */
    TARGET = 2,     /* request target: visible ASCII but '#' */
    VALUE = 4,      /* field value: visible, obs-text, SP, HTAB */
    HOST_CHAR = 8,  /* uri-host [":" port], RFC 3986 §3.2.2 */
    HEX_DIGIT = 16, /* chunk size */
};
#define ALNUM (TCHAR | TARGET | VALUE | HOST_CHAR)
#define HEXA  (ALNUM | HEX_DIGIT)
#define V     VALUE
#define TV    (TARGET | VALUE)
#define TTV   (TCHAR | TARGET | VALUE)
#define HTV   (HOST_CHAR | TARGET | VALUE)
#define HTTV  (HOST_CHAR | TCHAR | TARGET | VALUE)
static const uint8_t classes[256] = {
    ['\t'] = V,
    [' '] = V,
    ['!'] = HTTV,
    ['"'] = TV,
    ['#'] = TCHAR | VALUE,
    ['$'] = HTTV,
    ['%'] = HTTV,
    ['&'] = HTTV,
    ['\''] = HTTV,
    ['('] = HTV,
    [')'] = HTV,
    ['*'] = HTTV,
    ['+'] = HTTV,
    [','] = TV,
    ['-'] = HTTV,
    ['.'] = HTTV,
    ['/'] = TV,
    ['0' ... '9'] = HEXA,
    [':'] = HTV,
    [';'] = HTV,
    ['<'] = TV,
    ['='] = HTV,
    ['>'] = TV,
    ['?'] = TV,
    ['@'] = TV,
    ['A' ... 'F'] = HEXA,
    ['G' ... 'Z'] = ALNUM,
    ['['] = HTV,
    ['\\'] = TV,
    [']'] = HTV,
    ['^'] = TTV,
    ['_'] = HTTV,
    ['`'] = TTV,
    ['a' ... 'f'] = HEXA,
    ['g' ... 'z'] = ALNUM,
    ['{'] = TV,
    ['|'] = TTV,
    ['}'] = TV,
    ['~'] = HTTV,
    [0x80 ... 0xFF] = V,
};

static __thread const char *fault_text = "";

const char *trk_h1_fault(void)
{
    return fault_text;
}

static int fault(int status, const char *text)
{
    fault_text = text;
    return -status;
}

static bool is_class(char c, enum byte_class class)
{
    return (classes[(unsigned char)c] & class) != 0;
}

static const char *skip_class(const char *p, const char *end, enum byte_class class)
{
    while (p < end && is_class(*p, class)) {
        p++;
    }
    return p;
}

/* First byte that cannot be part of a field value, or `end`. */
static const char *skip_value(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i last_control = _mm_set1_epi8(0x1F);
    const __m128i del = _mm_set1_epi8(0x7F);
    while (end - p >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i bad = _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(v, last_control), v),
                                   _mm_cmpeq_epi8(v, del));
        int mask = _mm_movemask_epi8(bad);
        if (mask == 0) {
            p += 16;
            continue;
        }
        p += __builtin_ctz((unsigned)mask);
        if (*p != '\t') {
            return p;
        }
        p++;
    }
#endif
    return skip_class(p, end, VALUE);
}

/* -- names -- */

/* Both are tokens of `len` bytes, `lower` in lower case: no token character but a letter becomes
 * another token character of a known name by setting bit 5. */
static bool equal_lower(const char *s, const char *lower, size_t len)
{
    const uint64_t bits = UINT64_C(0x2020202020202020);
    if (len < 8) {
        for (size_t i = 0; i < len; i++) {
            if ((s[i] | 0x20) != lower[i]) {
                return false;
            }
        }
        return true;
    }
    uint64_t a, b;
    for (size_t i = 0; i + 8 < len; i += 8) {
        memcpy(&a, s + i, 8);
        memcpy(&b, lower + i, 8);
        if ((a | bits) != b) {
            return false;
        }
    }
    memcpy(&a, s + len - 8, 8);
    memcpy(&b, lower + len - 8, 8);
    return (a | bits) == b;
}

struct known_name {
    const char *name;
    uint8_t id;
};
#define KNOWN_LEN_MAX 21
/* By length; no length has more than three. */
static const struct known_name known[KNOWN_LEN_MAX + 1][4] = {
    [2] = {{"te", TRK_H1_TE}},
    [4] = {{"host", TRK_H1_HOST}, {"date", TRK_H1_DATE}},
    [6] = {{"cookie", TRK_H1_COOKIE}, {"server", TRK_H1_SERVER}, {"expect", TRK_H1_EXPECT}},
    [7] = {{"upgrade", TRK_H1_UPGRADE}, {"trailer", TRK_H1_TRAILER}},
    [8] = {{"location", TRK_H1_LOCATION}},
    [10] = {{"connection", TRK_H1_CONNECTION}, {"keep-alive", TRK_H1_KEEP_ALIVE}},
    [12] = {{"content-type", TRK_H1_CONTENT_TYPE}},
    [13] = {{"x-caller-name", TRK_H1_X_CALLER_NAME}},
    [14] = {{"content-length", TRK_H1_CONTENT_LENGTH}},
    [15] = {{"x-forwarded-for", TRK_H1_X_FORWARDED_FOR}},
    [16] = {{"x-racetrack-auth", TRK_H1_X_RACETRACK_AUTH},
            {"x-forwarded-host", TRK_H1_X_FORWARDED_HOST},
            {"proxy-connection", TRK_H1_PROXY_CONNECTION}},
    [17] = {{"transfer-encoding", TRK_H1_TRANSFER_ENCODING},
            {"x-forwarded-proto", TRK_H1_X_FORWARDED_PROTO}},
    [19] = {{"proxy-authorization", TRK_H1_PROXY_AUTHORIZATION}},
    [20] = {{"x-request-tracing-id", TRK_H1_X_REQUEST_TRACING_ID},
            {"x-racetrack-esc-auth", TRK_H1_X_RACETRACK_ESC_AUTH}},
    [21] = {{"x-racetrack-user-auth", TRK_H1_X_RACETRACK_USER_AUTH}},
};

static uint8_t name_id(const char *name, size_t len)
{
    if (len > KNOWN_LEN_MAX) {
        return TRK_H1_OTHER;
    }
    for (const struct known_name *k = known[len]; k->name != NULL; k++) {
        if (equal_lower(name, k->name, len)) {
            return k->id;
        }
    }
    return TRK_H1_OTHER;
}

bool trk_h1_is(struct trk_h1_slice slice, const char *lower)
{
    size_t i = 0;
    for (; i < slice.len && lower[i] != '\0'; i++) {
        char c = slice.at[i];
        if (c >= 'A' && c <= 'Z') {
            c = (char)(c | 0x20);
        }
        if (c != lower[i]) {
            return false;
        }
    }
    return i == slice.len && lower[i] == '\0';
}

const struct trk_h1_header *trk_h1_find(const struct trk_h1_header *headers, size_t count,
                                        const char *lower_name)
{
    for (size_t i = 0; i < count; i++) {
        if (trk_h1_is(headers[i].name, lower_name)) {
            return &headers[i];
        }
    }
    return NULL;
}

/* Takes the next token of a list off `*rest`; false at the end. */
static bool next_token(struct trk_h1_slice *rest, struct trk_h1_slice *ret_token)
{
    const char *p = rest->at;
    const char *end = p + rest->len;
    while (p < end && (*p == ' ' || *p == '\t' || *p == ',')) {
        p++;
    }
    if (p == end) {
        return false;
    }
    const char *comma = memchr(p, ',', (size_t)(end - p));
    const char *last = comma != NULL ? comma : end;
    rest->at = last;
    rest->len = (size_t)(end - last);
    while (last > p && (last[-1] == ' ' || last[-1] == '\t')) {
        last--;
    }
    ret_token->at = p;
    ret_token->len = (size_t)(last - p);
    return true;
}

bool trk_h1_has_token(struct trk_h1_slice value, const char *lower)
{
    struct trk_h1_slice token;
    while (next_token(&value, &token)) {
        if (trk_h1_is(token, lower)) {
            return true;
        }
    }
    return false;
}

/* -- header fields -- */

/* What the fields say about framing, gathered while they are read. */
struct framing {
    bool has_length, has_encoding, has_host, has_upgrade;
    bool connection_close, connection_keep_alive, connection_upgrade;
    bool expect_continue;
    bool chunked;
    uint64_t length;
    struct trk_h1_slice host;
};

static int take_length(struct framing *f, struct trk_h1_slice value)
{
    if (f->has_length) {
        return fault(400, "Content-Length is given more than once");
    }
    if (value.len == 0 || value.len > 19) {
        return fault(400, "Content-Length is not a decimal number");
    }
    uint64_t n = 0;
    for (size_t i = 0; i < value.len; i++) {
        if (value.at[i] < '0' || value.at[i] > '9') {
            return fault(400, "Content-Length is not a decimal number");
        }
        n = n * 10 + (uint64_t)(value.at[i] - '0');
    }
    if (n > INT64_MAX) {
        return fault(400, "Content-Length is too large");
    }
    f->has_length = true;
    f->length = n;
    return 0;
}

static int take_encoding(struct framing *f, struct trk_h1_slice value)
{
    if (f->has_encoding) {
        return fault(400, "Transfer-Encoding is given more than once");
    }
    f->has_encoding = true;
    if (trk_h1_is(value, "chunked")) {
        f->chunked = true;
        return 0;
    }
    size_t chunked = 0, others = 0;
    struct trk_h1_slice token;
    while (next_token(&value, &token)) {
        if (trk_h1_is(token, "chunked")) {
            chunked++;
        } else if (skip_class(token.at, token.at + token.len, TCHAR) == token.at + token.len) {
            others++;
        } else {
            return fault(400, "Transfer-Encoding is malformed");
        }
    }
    if (chunked > 1 || others == 0) {
        return fault(400, "Transfer-Encoding is malformed");
    }
    return fault(501, "Transfer-Encoding other than chunked is not supported");
}

static void take_connection(struct framing *f, struct trk_h1_slice value)
{
    struct trk_h1_slice token;
    while (next_token(&value, &token)) {
        if (trk_h1_is(token, "close")) {
            f->connection_close = true;
        } else if (trk_h1_is(token, "keep-alive")) {
            f->connection_keep_alive = true;
        } else if (trk_h1_is(token, "upgrade")) {
            f->connection_upgrade = true;
        }
    }
}

static int take_host(struct framing *f, struct trk_h1_slice value)
{
    if (f->has_host) {
        return fault(400, "Host is given more than once");
    }
    const char *end = value.at + value.len;
    if (skip_class(value.at, end, HOST_CHAR) != end) {
        return fault(400, "Host is malformed");
    }
    if (value.len == 0) {
        return fault(400, "Host is empty"); /* RFC 9110 §4.2.1 */
    }
    f->has_host = true;
    f->host = value;
    return 0;
}

static int take_field(struct framing *f, const struct trk_h1_header *h, bool is_request)
{
    switch (h->id) {
    case TRK_H1_CONTENT_LENGTH:
        return take_length(f, h->value);
    case TRK_H1_TRANSFER_ENCODING:
        return take_encoding(f, h->value);
    case TRK_H1_CONNECTION:
        take_connection(f, h->value);
        return 0;
    case TRK_H1_HOST:
        return is_request ? take_host(f, h->value) : 0;
    case TRK_H1_UPGRADE:
        f->has_upgrade = true;
        return 0;
    case TRK_H1_EXPECT:
        f->expect_continue = trk_h1_is(h->value, "100-continue");
        return 0;
    default:
        return 0;
    }
}

/* One field line at `p`: 1 and *ret_next after its CRLF, 0 when more bytes are needed. */
static int parse_field(const char *p, const char *end, struct trk_h1_header *h,
                       const char **ret_next)
{
    const char *name = p;
    p = skip_class(p, end, TCHAR);
    if (p == end) {
        return 0;
    }
    if (p == name) {
        return fault(400, *p == ' ' || *p == '\t' ? "folded header lines are not accepted"
                                                  : "a header line has no valid name");
    }
    if (*p != ':') {
        return fault(400, "a header name has an invalid character or white space before ':'");
    }
    h->name.at = name;
    h->name.len = (size_t)(p - name);
    p++;
    while (p < end && (*p == ' ' || *p == '\t')) {
        p++;
    }
    const char *value = p;
    p = skip_value(p, end);
    if (end - p < 2) {
        return p < end && *p != '\r' ? fault(400, "a header value has a control character") : 0;
    }
    if (p[0] != '\r' || p[1] != '\n') {
        return fault(400, *p == '\r' || *p == '\n' ? "a header line ends in a bare CR or LF"
                                                   : "a header value has a control character");
    }
    const char *last = p;
    while (last > value && (last[-1] == ' ' || last[-1] == '\t')) {
        last--;
    }
    h->value.at = value;
    h->value.len = (size_t)(last - value);
    h->id = name_id(h->name.at, h->name.len);
    *ret_next = p + 2;
    return 1;
}

/* All field lines from `p` to the empty line: 1 and *ret_next after it, 0, or a fault. */
static int parse_fields(const char *p, const char *end, bool is_request,
                        struct trk_h1_header *headers, size_t *ret_count, struct framing *f,
                        const char **ret_next)
{
    size_t count = 0;
    while (p < end) {
        if (*p == '\r') {
            if (p + 1 == end) {
                return 0;
            }
            if (p[1] != '\n') {
                return fault(400, "a header line ends in a bare CR or LF");
            }
            *ret_count = count;
            *ret_next = p + 2;
            return 1;
        }
        if (count == TRK_H1_HEADERS_MAX) {
            return fault(431, "too many header lines");
        }
        int n = parse_field(p, end, &headers[count], &p);
        if (n > 0) {
            n = take_field(f, &headers[count], is_request);
            if (n == 0) {
                count++;
                continue;
            }
        }
        return n;
    }
    return 0;
}

static int check_framing(const struct framing *f, int minor)
{
    if (f->has_encoding && f->has_length) {
        return fault(400, "Content-Length and Transfer-Encoding must not be given together");
    }
    if (f->has_encoding && minor == 0) {
        return fault(400, "Transfer-Encoding is not part of HTTP/1.0");
    }
    return 0;
}

static bool keeps_alive(const struct framing *f, int minor)
{
    return !f->connection_close && (minor == 1 || f->connection_keep_alive);
}

/* -- requests -- */

/* Is `len` bytes of what should be "HTTP/1.x" wrong already, or complete? 1, 0 or a fault. */
static int parse_version(const char *p, size_t len, int *ret_minor)
{
    static const char prefix[] = "HTTP/";
    size_t known_len = len < 5 ? len : 5;
    if (memcmp(p, prefix, known_len) != 0) {
        return fault(400, "the request line does not end in an HTTP version");
    }
    if (len < 8) {
        return 0;
    }
    if (p[5] < '0' || p[5] > '9' || p[6] != '.' || p[7] < '0' || p[7] > '9') {
        return fault(400, "the HTTP version is malformed");
    }
    if (p[5] != '1' || p[7] > '1') {
        return fault(505, "only HTTP/1.0 and HTTP/1.1 are supported");
    }
    *ret_minor = p[7] - '0';
    return 1;
}

/* Absolute-form (RFC 9112 §3.2.2): the target becomes its path. */
static bool take_authority(struct trk_h1_request *r)
{
    static const char *const schemes[] = {"http://", "https://"};
    const char *end = r->target.at + r->target.len;
    for (size_t i = 0; i < 2; i++) {
        size_t len = strlen(schemes[i]);
        if (r->target.len > len &&
            trk_h1_is((struct trk_h1_slice){r->target.at, len}, schemes[i])) {
            const char *authority = r->target.at + len;
            const char *path = skip_class(authority, end, HOST_CHAR);
            r->authority = (struct trk_h1_slice){authority, (size_t)(path - authority)};
            r->target = (struct trk_h1_slice){path, (size_t)(end - path)};
            return path > authority && path < end && *path == '/';
        }
    }
    return false;
}

static int check_target(struct trk_h1_request *r)
{
    r->authority = (struct trk_h1_slice){0};
    if (r->target.at[0] == '/' || take_authority(r)) {
        return 0;
    }
    if (r->target.len == 1 && r->target.at[0] == '*' && r->method.len == 7 &&
        memcmp(r->method.at, "OPTIONS", 7) == 0) {
        return 0;
    }
    return fault(400, "the request target must be a path");
}

/* "METHOD SP target SP HTTP/1.x CRLF" */
static int parse_request_line(struct trk_h1_request *r, const char *p, const char *end,
                              const char **ret_next)
{
    const char *method = p;
    p = skip_class(p, end, TCHAR);
    if (p - method > 32) {
        return fault(400, "the method is too long");
    }
    if (p == end) {
        return 0;
    }
    if (p == method || *p != ' ') {
        return fault(400, "the request line has no valid method");
    }
    r->method.at = method;
    r->method.len = (size_t)(p - method);
    const char *target = ++p;
    p = skip_class(p, end, TARGET);
    if (p - target > TRK_H1_TARGET_MAX) {
        return fault(414, "the request target is longer than 16 KiB");
    }
    if (p == end) {
        return 0;
    }
    if (p == target || *p != ' ') {
        return fault(400, "the request target has an invalid character");
    }
    r->target.at = target;
    r->target.len = (size_t)(p - target);
    p++;
    int n = parse_version(p, (size_t)(end - p), &r->minor);
    if (n <= 0) {
        return n;
    }
    p += 8;
    if (p < end && *p != '\r') {
        return fault(400, "the request line does not end in CRLF");
    }
    if (end - p < 2) {
        return 0;
    }
    if (p[1] != '\n') {
        return fault(400, "the request line does not end in CRLF");
    }
    *ret_next = p + 2;
    return check_target(r) < 0 ? -400 : 1;
}

static bool is_same(struct trk_h1_slice a, struct trk_h1_slice b)
{
    return a.len == b.len && strncasecmp(a.at, b.at, a.len) == 0;
}

static int finish_request(struct trk_h1_request *r, const struct framing *f)
{
    int n = check_framing(f, r->minor);
    if (n < 0) {
        return n;
    }
    if (!f->has_host && r->minor == 1) {
        return fault(400, "Host is missing");
    }
    if (r->authority.len > 0 && f->has_host && !is_same(r->authority, f->host)) {
        return fault(400, "Host differs from the host in the request target");
    }
    r->keep_alive = keeps_alive(f, r->minor);
    r->upgrade = r->minor == 1 && f->connection_upgrade && f->has_upgrade;
    r->body = f->chunked ? TRK_H1_CHUNKED : f->length > 0 ? TRK_H1_LENGTH : TRK_H1_NO_BODY;
    r->content_length = f->length;
    r->expect_continue = r->minor == 1 && f->expect_continue && r->body != TRK_H1_NO_BODY;
    return 0;
}

int trk_h1_parse_request(struct trk_h1_request *ret, const char *bytes, size_t len)
{
    bool is_cut = len > TRK_H1_HEAD_MAX;
    const char *p = bytes;
    const char *end = bytes + (is_cut ? TRK_H1_HEAD_MAX : len);
    if (end - p >= 2 && p[0] == '\r' && p[1] == '\n') {
        p += 2;
    } else if (end - p == 1 && p[0] == '\r') {
        return 0;
    }
    struct framing f = {0};
    int n = parse_request_line(ret, p, end, &p);
    if (n > 0) {
        n = parse_fields(p, end, true, ret->headers, &ret->header_count, &f, &p);
    }
    if (n == 0 && (is_cut || len == TRK_H1_HEAD_MAX)) {
        return fault(431, "the request head is longer than 32 KiB");
    }
    if (n > 0) {
        n = finish_request(ret, &f);
        return n < 0 ? n : (int)(p - bytes);
    }
    return n;
}

/* -- responses -- */

/* "HTTP/1.x SP 3DIGIT [SP reason] CRLF" */
static int parse_status_line(struct trk_h1_response *r, const char *p, const char *end,
                             const char **ret_next)
{
    int n = parse_version(p, (size_t)(end - p), &r->minor);
    if (n <= 0) {
        return n;
    }
    p += 8;
    if (end - p < 5) {
        return 0;
    }
    if (p[0] != ' ' || p[1] < '1' || p[1] > '9' || p[2] < '0' || p[2] > '9' || p[3] < '0' ||
        p[3] > '9' || (p[4] != ' ' && p[4] != '\r')) {
        return fault(502, "the status line is malformed");
    }
    r->status = (p[1] - '0') * 100 + (p[2] - '0') * 10 + (p[3] - '0');
    p = skip_value(p + 4, end);
    if (end - p < 2) {
        return p < end && *p != '\r' ? fault(502, "the status line is malformed") : 0;
    }
    if (p[0] != '\r' || p[1] != '\n') {
        return fault(502, "the status line is malformed");
    }
    *ret_next = p + 2;
    return 1;
}

static void finish_response(struct trk_h1_response *r, const struct framing *f)
{
    r->content_length = 0;
    if (r->status < 200 || r->status == 204 || r->status == 304) {
        r->body = TRK_H1_NO_BODY;
        r->content_length = f->length; /* of a 304: what the body would be */
    } else if (f->chunked) {
        r->body = TRK_H1_CHUNKED;
    } else if (f->has_length) {
        r->body = f->length > 0 ? TRK_H1_LENGTH : TRK_H1_NO_BODY;
        r->content_length = f->length;
    } else {
        r->body = TRK_H1_UNTIL_CLOSE;
    }
    r->keep_alive = keeps_alive(f, r->minor) && r->body != TRK_H1_UNTIL_CLOSE;
}

int trk_h1_parse_response(struct trk_h1_response *ret, const char *bytes, size_t len)
{
    bool is_cut = len > TRK_H1_HEAD_MAX;
    const char *p = bytes;
    const char *end = bytes + (is_cut ? TRK_H1_HEAD_MAX : len);
    struct framing f = {0};
    int n = parse_status_line(ret, p, end, &p);
    if (n > 0) {
        n = parse_fields(p, end, false, ret->headers, &ret->header_count, &f, &p);
    }
    if (n > 0 && check_framing(&f, ret->minor) < 0) {
        n = -1;
    }
    if (n < 0) {
        return -502;
    }
    if (n == 0) {
        return is_cut || len == TRK_H1_HEAD_MAX
                   ? fault(502, "the response head is longer than 32 KiB")
                   : 0;
    }
    finish_response(ret, &f);
    return (int)(p - bytes);
}
