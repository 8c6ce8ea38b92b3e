#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/http/h1.h"

/* Parses from an exactly sized heap copy, so that a sanitizer sees any read past the end. */
static int parse(struct trk_h1_request *r, const char *bytes, size_t len, char **ret_copy)
{
    char *copy = trk_xmalloc(len + (len == 0));
    memcpy(copy, bytes, len);
    int n = trk_h1_parse_request(r, copy, len);
    if (ret_copy != NULL) {
        *ret_copy = copy;
    } else {
        free(copy);
    }
    return n;
}

static const struct {
    const char *bytes;
    int status;
} refused[] = {
    /* lengths */
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400},
    /* codings */
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
     400},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \vchunked\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n", 400},
    {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    /* lines */
    {"GET / HTTP/1.1\nHost: a\n\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tfolded\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01z\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fz\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nX: 0123456789abcdef0123456789\x02z\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nNoColon\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nX(y: b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa9: b\r\n\r\n", 400},
    {"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    /* host */
    {"GET / HTTP/1.1\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
    {"GET / HTTP/1.0\r\nHost: \r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
    /* request line */
    {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
    {"GET / http/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET / HTTP/1.1x\r\nHost: a\r\n\r\n", 400},
    {"GET /\r\n\r\n", 400},
    {"GET / HTTP/2.0\r\n\r\n", 505},
    {"GET / HTTP/0.9\r\n\r\n", 505},
    {"GET / HTTP/1.2\r\n\r\n", 505},
    {"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400},
    {"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"\x16\x03\x01\x02", 400},
};

START_TEST(attack_is_refused)
{
    struct trk_h1_request r;
    int n = parse(&r, refused[_i].bytes, strlen(refused[_i].bytes), NULL);
    ck_assert_msg(n == -refused[_i].status, "case %d: got %d, want -%d: %s", _i, n,
                  refused[_i].status, refused[_i].bytes);
    ck_assert_str_ne(trk_h1_fault(), "");
}
END_TEST

START_TEST(nul_is_refused_anywhere)
{
    static const char whole[] =
        "POST /path HTTP/1.1\r\nHost: a\r\nX-Long: 0123456789abcdefghij\r\n\r\n";
    struct trk_h1_request r;
    ck_assert_int_gt(parse(&r, whole, sizeof(whole) - 1, NULL), 0);
    for (size_t i = 0; i < sizeof(whole) - 1; i++) {
        char bytes[sizeof(whole)];
        memcpy(bytes, whole, sizeof(whole));
        bytes[i] = '\0';
        int n = parse(&r, bytes, sizeof(whole) - 1, NULL);
        ck_assert_msg(n < 0, "NUL at %zu answered %d", i, n);
    }
}
END_TEST

static const char post[] = "POST /a//b%2Fc?q=%00&x={|} HTTP/1.1\r\n"
                           "hOST: [::1]:7205\r\n"
                           "Content-Length:12 \t\r\n"
                           "X-Racetrack-Auth: \t a b\xff \r\n"
                           "X-Empty:\r\n"
                           "eXPECT: 100-Continue\r\n"
                           "Connection: foo, Close\r\n\r\n";

START_TEST(request_is_taken_apart)
{
    struct trk_h1_request r;
    char *copy;
    int n = parse(&r, post, sizeof(post) - 1, &copy);
    ck_assert_int_eq(n, (int)sizeof(post) - 1);
    ck_assert_mem_eq(r.method.at, "POST", 4);
    ck_assert_uint_eq(r.method.len, 4);
    ck_assert_uint_eq(r.target.len, strlen("/a//b%2Fc?q=%00&x={|}"));
    ck_assert_mem_eq(r.target.at, "/a//b%2Fc?q=%00&x={|}", r.target.len);
    ck_assert_int_eq(r.minor, 1);
    ck_assert_int_eq(r.body, TRK_H1_LENGTH);
    ck_assert_uint_eq(r.content_length, 12);
    ck_assert(r.expect_continue);
    ck_assert(!r.keep_alive);
    ck_assert(!r.upgrade);
    ck_assert_uint_eq(r.header_count, 6);
    ck_assert_int_eq(r.headers[0].id, TRK_H1_HOST);
    ck_assert_int_eq(r.headers[2].id, TRK_H1_X_RACETRACK_AUTH);
    ck_assert_uint_eq(r.headers[2].value.len, 4);
    ck_assert_mem_eq(r.headers[2].value.at, "a b\xff", 4);
    ck_assert_int_eq(r.headers[3].id, TRK_H1_OTHER);
    ck_assert_uint_eq(r.headers[3].value.len, 0);
    ck_assert_ptr_eq(trk_h1_find(r.headers, r.header_count, "x-empty"), &r.headers[3]);
    ck_assert_ptr_null(trk_h1_find(r.headers, r.header_count, "x-emptyy"));
    free(copy);
}
END_TEST

START_TEST(every_prefix_asks_for_more)
{
    struct trk_h1_request r;
    for (size_t i = 0; i < sizeof(post) - 1; i++) {
        ck_assert_int_eq(parse(&r, post, i, NULL), 0);
    }
    struct trk_h1_response a;
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: y\r\n\r\n";
    for (size_t i = 0; i < sizeof(answer) - 1; i++) {
        trk_autofree char *copy = trk_xmalloc(i + 1);
        memcpy(copy, answer, i);
        ck_assert_int_eq(trk_h1_parse_response(&a, copy, i), 0);
    }
    ck_assert_int_eq(trk_h1_parse_response(&a, answer, sizeof(answer) - 1),
                     (int)sizeof(answer) - 1);
}
END_TEST

static const struct {
    const char *bytes;
    bool keep_alive, upgrade, expect;
    enum trk_h1_body body;
} accepted[] = {
    {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true, false, false, TRK_H1_NO_BODY},
    {"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", true, false, false, TRK_H1_NO_BODY},
    {"GET / HTTP/1.0\r\n\r\n", false, false, false, TRK_H1_NO_BODY},
    {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true, false, false, TRK_H1_NO_BODY},
    {"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false,
     false, false, TRK_H1_NO_BODY},
    {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", true, true,
     false, TRK_H1_NO_BODY},
    {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", true, false, false, TRK_H1_NO_BODY},
    {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", true, false, false, TRK_H1_NO_BODY},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nExpect: 100-continue\r\n\r\n",
     true, false, true, TRK_H1_CHUNKED},
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n", true, false,
     false, TRK_H1_NO_BODY},
    {"POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", false, false, false,
     TRK_H1_LENGTH},
};

START_TEST(semantics_are_read)
{
    struct trk_h1_request r;
    size_t len = strlen(accepted[_i].bytes);
    ck_assert_int_eq(parse(&r, accepted[_i].bytes, len, NULL), (int)len);
    ck_assert_int_eq(r.keep_alive, accepted[_i].keep_alive);
    ck_assert_int_eq(r.upgrade, accepted[_i].upgrade);
    ck_assert_int_eq(r.expect_continue, accepted[_i].expect);
    ck_assert_int_eq(r.body, accepted[_i].body);
}
END_TEST

START_TEST(known_names_are_recognised)
{
    static const struct {
        const char *name;
        int id;
    } names[] = {
        {"Host", TRK_H1_HOST},
        {"CONNECTION", TRK_H1_CONNECTION},
        {"content-length", TRK_H1_CONTENT_LENGTH},
        {"Transfer-Encoding", TRK_H1_TRANSFER_ENCODING},
        {"Upgrade", TRK_H1_UPGRADE},
        {"Expect", TRK_H1_EXPECT},
        {"TE", TRK_H1_TE},
        {"Trailer", TRK_H1_TRAILER},
        {"Keep-Alive", TRK_H1_KEEP_ALIVE},
        {"Proxy-Connection", TRK_H1_PROXY_CONNECTION},
        {"Proxy-Authorization", TRK_H1_PROXY_AUTHORIZATION},
        {"Cookie", TRK_H1_COOKIE},
        {"Location", TRK_H1_LOCATION},
        {"Content-Type", TRK_H1_CONTENT_TYPE},
        {"Date", TRK_H1_DATE},
        {"Server", TRK_H1_SERVER},
        {"X-Forwarded-For", TRK_H1_X_FORWARDED_FOR},
        {"X-Forwarded-Host", TRK_H1_X_FORWARDED_HOST},
        {"X-Forwarded-Proto", TRK_H1_X_FORWARDED_PROTO},
        {"X-Racetrack-Auth", TRK_H1_X_RACETRACK_AUTH},
        {"X-Racetrack-User-Auth", TRK_H1_X_RACETRACK_USER_AUTH},
        {"X-Racetrack-Esc-Auth", TRK_H1_X_RACETRACK_ESC_AUTH},
        {"X-Caller-Name", TRK_H1_X_CALLER_NAME},
        {"X-Request-Tracing-Id", TRK_H1_X_REQUEST_TRACING_ID},
        {"X-Caller_Name", TRK_H1_OTHER},
        {"X-Forwarded-Foo", TRK_H1_OTHER},
        {"A", TRK_H1_OTHER},
        {"A-name-that-is-longer-than-any-known", TRK_H1_OTHER},
    };
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        trk_autofree char *bytes = trk_xasprintf("HTTP/1.1 204 No\r\n%s: 1\r\n\r\n", names[i].name);
        if (names[i].id == TRK_H1_TRANSFER_ENCODING) {
            free(bytes);
            bytes = trk_xasprintf("HTTP/1.1 204 No\r\n%s: chunked\r\n\r\n", names[i].name);
        }
        struct trk_h1_response r;
        ck_assert_int_gt(trk_h1_parse_response(&r, bytes, strlen(bytes)), 0);
        ck_assert_msg(r.headers[0].id == names[i].id, "%s is %d", names[i].name, r.headers[0].id);
    }
}
END_TEST

START_TEST(limits_have_their_status)
{
    struct trk_h1_request r;
    size_t size = TRK_H1_HEAD_MAX + 100;
    trk_autofree char *bytes = trk_xmalloc(size);
    memset(bytes, 'a', size);
    memcpy(bytes, "GET /", 5);
    ck_assert_int_eq(trk_h1_parse_request(&r, bytes, TRK_H1_TARGET_MAX), 0);
    ck_assert_int_eq(trk_h1_parse_request(&r, bytes, TRK_H1_TARGET_MAX + 10), -414);
    static const char start[] = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    memcpy(bytes, start, sizeof(start) - 1);
    ck_assert_int_eq(trk_h1_parse_request(&r, bytes, TRK_H1_HEAD_MAX - 1), 0);
    ck_assert_int_eq(trk_h1_parse_request(&r, bytes, TRK_H1_HEAD_MAX), -431);
    memcpy(bytes + TRK_H1_HEAD_MAX - 4, "\r\n\r\n", 4);
    ck_assert_int_eq(trk_h1_parse_request(&r, bytes, size), TRK_H1_HEAD_MAX);
    memcpy(bytes + TRK_H1_HEAD_MAX - 4, "a\r\n\r\n", 5);
    ck_assert_int_eq(trk_h1_parse_request(&r, bytes, size), -431);

    char many[4096] = "GET / HTTP/1.1\r\nHost: a\r\n";
    size_t len = strlen(many);
    for (int i = 1; i < TRK_H1_HEADERS_MAX; i++) {
        memcpy(many + len, "A: b\r\n", 6);
        len += 6;
    }
    memcpy(many + len, "\r\n", 2);
    ck_assert_int_eq(trk_h1_parse_request(&r, many, len + 2), (int)len + 2);
    memcpy(many + len, "A: b\r\n\r\n", 8);
    ck_assert_int_eq(trk_h1_parse_request(&r, many, len + 8), -431);
}
END_TEST

static const struct {
    const char *bytes;
    int n; /* -502, or 0: the whole */
    int status;
    enum trk_h1_body body;
    bool keep_alive;
} answers[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 0, 200, TRK_H1_LENGTH, true},
    {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 0, 200, TRK_H1_NO_BODY, true},
    {"HTTP/1.1 200 \r\n\r\n", 0, 200, TRK_H1_UNTIL_CLOSE, false},
    {"HTTP/1.1 200 \xc3\xa9t\xc3\xa9\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 200, TRK_H1_CHUNKED,
     true},
    {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", 0, 200, TRK_H1_LENGTH, false},
    {"HTTP/1.1 204 No Content\r\n\r\n", 0, 204, TRK_H1_NO_BODY, true},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 0, 304, TRK_H1_NO_BODY, true},
    {"HTTP/1.1 100 Continue\r\n\r\n", 0, 100, TRK_H1_NO_BODY, true},
    {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", 0, 101, TRK_H1_NO_BODY,
     true},
    {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n", 0, 200, TRK_H1_LENGTH,
     false},
    {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", -502, 0, 0,
     false},
    {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", -502, 0, 0, false},
    {"HTTP/1.1 200 OK\nContent-Length: 3\n\n", -502, 0, 0, false},
    {"HTTP/1.1 2000 OK\r\n\r\n", -502, 0, 0, false},
    {"HTTP/1.1 20 OK\r\n\r\n", -502, 0, 0, false},
    {"HTTP/1.1 099 OK\r\n\r\n", -502, 0, 0, false},
    {"HTTP/2.0 200 OK\r\n\r\n", -502, 0, 0, false},
    {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", -502, 0, 0, false},
    {"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n", -502, 0, 0, false},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", -502, 0, 0, false},
    {"SSH-2.0-OpenSSH\r\n", -502, 0, 0, false},
};

START_TEST(response_is_read)
{
    struct trk_h1_response r;
    size_t len = strlen(answers[_i].bytes);
    int n = trk_h1_parse_response(&r, answers[_i].bytes, len);
    ck_assert_int_eq(n, answers[_i].n == 0 ? (int)len : answers[_i].n);
    if (n > 0) {
        ck_assert_int_eq(r.status, answers[_i].status);
        ck_assert_int_eq(r.body, answers[_i].body);
        ck_assert_int_eq(r.keep_alive, answers[_i].keep_alive);
    }
}
END_TEST

START_TEST(list_tokens_are_found)
{
    struct trk_h1_slice value = {"keep-alive ,, UPGRADE\t,x", 24};
    ck_assert(trk_h1_has_token(value, "upgrade"));
    ck_assert(trk_h1_has_token(value, "keep-alive"));
    ck_assert(trk_h1_has_token(value, "x"));
    ck_assert(!trk_h1_has_token(value, "keep"));
    ck_assert(!trk_h1_has_token(value, ""));
}
END_TEST

/* Feeds `step` bytes at a time; the payload goes to out. Answers the last result; *ret_used is what
 * was consumed in all. */
static int decode(const char *bytes, size_t len, size_t step, char *out, size_t *ret_len,
                  size_t *ret_used)
{
    struct trk_h1_chunked c;
    trk_h1_chunked_init(&c);
    size_t at = 0;
    *ret_len = 0;
    int n = 0;
    while (n == 0 && at < len) {
        size_t piece = len - at < step ? len - at : step;
        size_t used;
        struct trk_h1_slice data;
        n = trk_h1_chunked_next(&c, bytes + at, piece, &used, &data);
        memcpy(out + *ret_len, data.at, data.len);
        *ret_len += data.len;
        at += used;
        ck_assert(used > 0 || n != 0);
    }
    *ret_used = at;
    return n;
}

static const struct {
    const char *bytes;
    int n;
    const char *payload;
    size_t left; /* bytes after the body */
} chunked[] = {
    {"5\r\nhello\r\n0\r\n\r\n", 1, "hello", 0},
    {"5;a=b;c=\"d\"\r\nhello\r\n00006\r\n world\r\n0\r\n\r\nGET", 1, "hello world", 3},
    {"A\r\n0123456789\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n", 1, "0123456789", 0},
    {"0\r\n\r\n", 1, "", 0},
    {"5\r\nhel", 0, "hel", 0},
    {"5\nhello\r\n0\r\n\r\n", -400, "", 0},
    {"5\r\nhello\n0\r\n\r\n", -400, "hello", 0},
    {"5\r\nhelloX\r\n0\r\n\r\n", -400, "hello", 0},
    {"5 \r\nhello\r\n0\r\n\r\n", -400, "", 0},
    {" 5\r\nhello\r\n0\r\n\r\n", -400, "", 0},
    {"0x5\r\nhello\r\n0\r\n\r\n", -400, "", 0},
    {"+5\r\nhello\r\n0\r\n\r\n", -400, "", 0},
    {"-5\r\nhello\r\n0\r\n\r\n", -400, "", 0},
    {"\r\nhello\r\n0\r\n\r\n", -400, "", 0},
    {";x\r\nhello\r\n0\r\n\r\n", -400, "", 0},
    {"5;a\nb\r\nhello\r\n0\r\n\r\n", -400, "", 0},
    {"5;a\rb\r\nhello\r\n0\r\n\r\n", -400, "", 0},
    {"8000000000000000\r\nhello", -400, "", 0},
    {"10000000000000005\r\nhello", -400, "", 0},
    {"0\r\nX: y\n\r\n", -400, "", 0},
    {"0\r\n folded\r\n\r\n", -400, "", 0},
    {"0\r\n\r\r\n", -400, "", 0},
    {"5;\xff\r\nhello\r\n0\r\n\r\n", -400, "", 0},
    {"5;a\x7f\r\nhello\r\n0\r\n\r\n", -400, "", 0},
    {"0\r\nno colon\r\n\r\n", -400, "", 0},
    {"0\r\nnocolon\r\n\r\n", -400, "", 0},
    {"0\r\n: no name\r\n\r\n", -400, "", 0},
};

START_TEST(chunked_body_is_decoded)
{
    size_t len = strlen(chunked[_i].bytes);
    for (size_t step = 1; step <= len; step++) {
        char out[64];
        size_t out_len, used;
        int n = decode(chunked[_i].bytes, len, step, out, &out_len, &used);
        ck_assert_msg(n == chunked[_i].n, "case %d step %zu: %d", _i, step, n);
        ck_assert_uint_eq(out_len, strlen(chunked[_i].payload));
        ck_assert_mem_eq(out, chunked[_i].payload, out_len);
        if (n == 1) {
            ck_assert_uint_eq(used, len - chunked[_i].left);
        }
    }
}
END_TEST

START_TEST(chunk_overhead_is_capped)
{
    size_t size = 16384;
    trk_autofree char *bytes = trk_xmalloc(size);
    trk_autofree char *out = trk_xmalloc(size);
    size_t out_len, used;
    memset(bytes, 'x', size);
    memcpy(bytes, "5;", 2);
    ck_assert_int_eq(decode(bytes, size, size, out, &out_len, &used), -400);
    memset(bytes, '0', size);
    ck_assert_int_eq(decode(bytes, size, size, out, &out_len, &used), -400);
    for (size_t i = 0; i + 6 <= size; i += 6) {
        memcpy(bytes + i, "X: y\r\n", 6);
    }
    memcpy(bytes, "0\r\nX:\r\n", 7);
    ck_assert_int_eq(decode(bytes, size, size, out, &out_len, &used), -400);
}
END_TEST

START_TEST(trailers_can_be_told_apart)
{
    static const char bytes[] = "1\r\nx\r\n0\r\nX-Caller-Name: root\r\n\r\n";
    struct trk_h1_chunked c;
    trk_h1_chunked_init(&c);
    size_t at = 0, used, before_trailer = 0;
    struct trk_h1_slice data;
    int n = 0;
    while (n == 0) {
        n = trk_h1_chunked_next(&c, bytes + at, sizeof(bytes) - 1 - at, &used, &data);
        at += used;
        if (before_trailer == 0 && trk_h1_chunked_in_trailer(&c)) {
            before_trailer = at;
        }
    }
    ck_assert_int_eq(n, 1);
    ck_assert_uint_eq(before_trailer, strlen("1\r\nx\r\n0\r\n"));
}
END_TEST

/* Its authority must be the Host; what is left is the path. */
START_TEST(absolute_target_is_its_path)
{
    struct trk_h1_request r;
    trk_autofree char *copy = NULL;
    static const char text[] = "GET HTTP://a.B:80/x?y HTTP/1.1\r\nHost: A.b:80\r\n\r\n";
    ck_assert_int_eq(parse(&r, text, strlen(text), &copy), (int)strlen(text));
    ck_assert_uint_eq(r.target.len, 4);
    ck_assert_mem_eq(r.target.at, "/x?y", 4);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("h1");
    TCase *tc = tcase_create("h1");
    tcase_add_loop_test(tc, attack_is_refused, 0, TRK_COUNT(refused));
    tcase_add_test(tc, nul_is_refused_anywhere);
    tcase_add_test(tc, request_is_taken_apart);
    tcase_add_test(tc, every_prefix_asks_for_more);
    tcase_add_loop_test(tc, semantics_are_read, 0, TRK_COUNT(accepted));
    tcase_add_test(tc, known_names_are_recognised);
    tcase_add_test(tc, limits_have_their_status);
    tcase_add_loop_test(tc, response_is_read, 0, TRK_COUNT(answers));
    tcase_add_test(tc, list_tokens_are_found);
    tcase_add_loop_test(tc, chunked_body_is_decoded, 0, TRK_COUNT(chunked));
    tcase_add_test(tc, chunk_overhead_is_capped);
    tcase_add_test(tc, absolute_target_is_its_path);
    tcase_add_test(tc, trailers_can_be_told_apart);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
