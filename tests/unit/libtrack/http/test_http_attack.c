/* What hostile or broken clients send: each gets a 4xx/5xx (or the end of the connection), no
 * handler runs, and nothing of it is taken for a second request. */
#include "tests/unit/libtrack/http/http_service.h"

#define SMUGGLED  "GET /api/v1/hello/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
#define POST      "POST /api/v1/echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
#define GET       "GET /api/v1/hello/x HTTP/1.1\r\n"
#define TLS_HELLO "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage\r\n\r\n"

#define WITH_LEN(text) text, 400, sizeof(text) - 1

struct attack {
    const char *name, *bytes;
    int status; /* 0: any of 400, 413, 431, 505 or no answer at all */
    size_t len; /* 0: strlen */
};
static const struct attack attacks[] = {
    {"both lengths",
     POST "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" SMUGGLED, 400, 0},
    {"both lengths, other order",
     POST "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" SMUGGLED, 400, 0},
    {"two differing lengths",
     POST "Content-Length: 7\r\nContent-Length: 8\r\n\r\n{\"a\":1}" SMUGGLED, 400, 0},
    {"two equal lengths", POST "Content-Length: 7\r\nContent-Length: 7\r\n\r\n{\"a\":1}" SMUGGLED,
     400, 0},
    {"length with plus", POST "Content-Length: +7\r\n\r\n{\"a\":1}" SMUGGLED, 400, 0},
    {"negative length", POST "Content-Length: -1\r\n\r\n{\"a\":1}" SMUGGLED, 400, 0},
    {"list of lengths", POST "Content-Length: 7, 7\r\n\r\n{\"a\":1}" SMUGGLED, 400, 0},
    {"hexadecimal length", POST "Content-Length: 0x7\r\n\r\n{\"a\":1}" SMUGGLED, 400, 0},
    {"length with space within", POST "Content-Length: 7 7\r\n\r\n{\"a\":1}" SMUGGLED, 400, 0},
    {"empty length", POST "Content-Length:\r\n\r\n{\"a\":1}" SMUGGLED, 400, 0},
    {"length past 64 bits", POST "Content-Length: 99999999999999999999\r\n\r\n{\"a\":1}" SMUGGLED,
     400, 0},
    {"length of 63 bits", POST "Content-Length: 9223372036854775807\r\n\r\n{\"a\":1}" SMUGGLED, 413,
     0},
    {"space before the colon", POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" SMUGGLED, 400,
     0},
    {"space before the colon of a length", POST "Content-Length : 7\r\n\r\n{\"a\":1}" SMUGGLED, 400,
     0},
    {"coding identity", POST "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" SMUGGLED, 501, 0},
    {"coding list", POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" SMUGGLED, 501, 0},
    {"coding twice in one", POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" SMUGGLED,
     400, 0},
    {"two codings",
     POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" SMUGGLED,
     400, 0},
    {"unknown coding", POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" SMUGGLED, 501, 0},
    {"coding behind a vertical tab", POST "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n" SMUGGLED,
     400, 0},
    {"coding in HTTP/1.0",
     "POST /api/v1/echo HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: "
     "chunked\r\n\r\n0\r\n\r\n" SMUGGLED,
     400, 0},
    {"two hosts", GET "Host: x\r\nHost: y\r\n\r\n" SMUGGLED, 400, 0},
    {"no host", GET "\r\n" SMUGGLED, 400, 0},
    {"host with a path", GET "Host: x/y\r\n\r\n" SMUGGLED, 400, 0},
    {"folded line", GET "Host: x\r\nX-A: a\r\n Content-Length: 48\r\n\r\n" SMUGGLED, 400, 0},
    {"fold before the first header", GET " X-A: a\r\nHost: x\r\n\r\n" SMUGGLED, 400, 0},
    {"bare CR within a value", GET "Host: x\r\nX-A: a\rContent-Length: 48\r\n\r\n" SMUGGLED, 400,
     0},
    {"control character in a value", GET "Host: x\r\nX-A: a\x01\r\n\r\n" SMUGGLED, 400, 0},
    {"NUL in a name", GET "Host: x\r\nX\0A: a\r\n\r\n", 400,
     sizeof(GET "Host: x\r\nX\0A: a\r\n\r\n") - 1},
    {"length on the next line", POST "Content-Length:\r\n 7\r\n\r\n{\"a\":1}" SMUGGLED, 400, 0},
    {"length on the next line, bare LF", POST "Content-Length:\n 7\r\n\r\n{\"a\":1}" SMUGGLED, 400,
     0},
    {"line that begins with a colon",
     POST ": x\r\nContent-Length: 48\r\n\r\nGET /api/v1/hello/smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
     400, 0},
    {"line that is a colon", POST ":\r\nContent-Length: 7\r\n\r\n{\"a\":1}" SMUGGLED, 400, 0},
    {"bare LF at the end of lines", "GET /api/v1/hello/x HTTP/1.1\nHost: x\n\n" SMUGGLED, 400, 0},
    {"bare LF behind a header", GET "Host: x\nX-A: a\r\n\r\n" SMUGGLED, 400, 0},
    {"bare LF at the end of the head", GET "Host: x\r\n\n" SMUGGLED, 400, 0},
    {"bare LF in chunks", POST "Transfer-Encoding: chunked\r\n\r\n7\n{\"a\":1}\n0\n\n" SMUGGLED,
     400, 0},
    {"bare LF in a chunk extension",
     POST "Transfer-Encoding: chunked\r\n\r\n7;a\n{\"a\":1}\r\n0\r\n\r\n" SMUGGLED, 400, 0},
    {"NUL in a value", WITH_LEN(GET "Host: x\r\nX-A: a\0b\r\n\r\n" SMUGGLED)},
    {"NUL in the path", WITH_LEN("GET /api/v1/hello/\0x HTTP/1.1\r\nHost: x\r\n\r\n" SMUGGLED)},
    {"NUL behind a length", WITH_LEN(POST "Content-Length: 7\0\r\n\r\n{\"a\":1}" SMUGGLED)},
    {"coding on the next line", POST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" SMUGGLED,
     400, 0},
    {"absolute target of another host", "GET http://y/live HTTP/1.1\r\nHost: x\r\n\r\n" SMUGGLED,
     400, 0},
    {"host in the target only", "GET http://x/live HTTP/1.1\r\n\r\n" SMUGGLED, 400, 0},
    {"header without colon", GET "Host: x\r\ngarbage\r\n\r\n" SMUGGLED, 400, 0},
    {"control character in the target",
     "GET /api/v1/hello/\x01 HTTP/1.1\r\nHost: x\r\n\r\n" SMUGGLED, 400, 0},
    {"space in the target", "GET /api/v1/hello/a b HTTP/1.1\r\nHost: x\r\n\r\n" SMUGGLED, 0, 0},
    {"fragment in the target", "GET /api/v1/hello/a#b HTTP/1.1\r\nHost: x\r\n\r\n" SMUGGLED, 400,
     0},
    {"backslash in the target", "GET /api\\v1/hello/a HTTP/1.1\r\nHost: x\r\n\r\n" SMUGGLED, 400,
     0},
    {"HTTP/2 without upgrade", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, 0},
    {"HTTP/1.2", "GET /api/v1/hello/x HTTP/1.2\r\nHost: x\r\n\r\n" SMUGGLED, 505, 0},
    {"HTTP/0.9", "GET /api/v1/hello/x\r\n\r\n" SMUGGLED, 400, 0},
    {"other protocol", "GET /api/v1/hello/x FTP/1.1\r\nHost: x\r\n\r\n" SMUGGLED, 400, 0},
    {"TLS hello", TLS_HELLO, 0, sizeof(TLS_HELLO) - 1},
    {"chunk size no number",
     POST "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n" SMUGGLED, 400, 0},
    {"negative chunk", POST "Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n" SMUGGLED, 400,
     0},
    {"chunk past 64 bits",
     POST "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n" SMUGGLED, 400,
     0},
    {"chunk size with 0x",
     POST "Transfer-Encoding: chunked\r\n\r\n0x7\r\n{\"a\":1}\r\n0\r\n\r\n" SMUGGLED, 400, 0},
    {"chunk longer than it says",
     POST "Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n" SMUGGLED, 400, 0},
    {"chunk line ended by bare CR",
     POST "Transfer-Encoding: chunked\r\n\r\n7\r{\"a\":1}\r0\r\r" SMUGGLED, 400, 0},
};

START_TEST(test_malformed)
{
    const struct attack *attack = &attacks[_i];
    struct service service = {0};
    service_start(&service, NULL);
    size_t len = attack->len > 0 ? attack->len : strlen(attack->bytes);
    struct raw_answer answer = raw_exchange(service.port, attack->bytes, len);
    if (attack->status != 0) {
        ck_assert_msg(answer.status == attack->status, "%s: %d, not %d: %s", attack->name,
                      answer.status, attack->status, answer.bytes);
    } else {
        ck_assert_msg(answer.status == 0 || answer.status == 400, "%s: %s", attack->name,
                      answer.bytes);
    }
    ck_assert_msg(answer.is_closed, "%s: the connection stays open", attack->name);
    ck_assert_msg(answer.answers <= 1, "%s: answered more than once: %s", attack->name,
                  answer.bytes);
    ck_assert_msg(strstr(answer.bytes, "smuggled") == NULL && service.calls == 0,
                  "%s: a second request came through: %s", attack->name, answer.bytes);
    raw_answer_fini(&answer);
    service_stop(&service);
}
END_TEST

struct path_case {
    const char *target;
    int status;
};
static const struct path_case paths[] = {
    {"/api/v1/hello/..", 400},
    {"/api/v1/hello/../../live", 400},
    {"/api/v1/hello/%2e%2e", 400},
    {"/api/v1/hello/%2E", 400},
    {"/api/v1/hello/..%2f..%2fetc%2fpasswd", 400},
    {"/api/v1/hello/a%2Fb", 400},
    {"/api/v1/files/a/../../b", 400},
    {"/api/v1/files/a/%2e%2e/b", 400},
    {"/api/v1/files/a%2f..%2fb", 400},
    {"/api/v1/files/..", 400},
    {"/api/v1/hello/%", 400},
    {"/api/v1/hello/%4", 400},
    {"/api/v1/hello/%zz", 400},
    {"/api/v1/hello/a%00b", 400},
    {"/api/v1/hello/%c0%af", 400},
    {"/api/v1/hello/%ff", 400},
    {"/api/v1/hello/a?text=%", 400},
    {"/api/v1/hello/a?text=%f", 400},
    {"/api/v1/hello/a?text=%00", 400},
    {"/api/v1/hello/a?text=%ff", 400},
    {"/api/v1/hello/a?n=1x", 422},
    {"/api/v1/hello/a?n=99999999999999999999", 422},
    {"/api/v1/hello/a?n=", 422},
    {"/api/v1/hello/a?flag=maybe", 422},
    {"//evil.example/live/", 404},
    {"//live", 404},
    {"/api/v1//hello/a", 404},
    {"/api/v1/hello/", 404},
    {"/api/v1/hello/a/b", 404},
    {"/lifecycled/live", 404},
    {"*", 400},
    {"live", 400},
};

START_TEST(test_path)
{
    struct service service = {0};
    service_start(&service, NULL);
    struct raw_answer answer = ask(&service, "GET", paths[_i].target, "", NULL);
    ck_assert_msg(answer.status == paths[_i].status, "%s: %d: %s", paths[_i].target, answer.status,
                  answer.bytes);
    ck_assert_str_eq(raw_header(&answer, "Location"), "");
    ck_assert_int_eq(service.calls, 0);
    raw_answer_fini(&answer);
    service_stop(&service);
}
END_TEST

/* A head larger than the connection's memory. */
START_TEST(test_large_head)
{
    struct service service = {0};
    service_start(&service, NULL);
    char *many = trk_xmalloc(200001);
    memset(many, 'a', 200000);
    many[200000] = '\0';
    trk_autofree char *uri = trk_xasprintf("GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", many);
    trk_autofree char *header = trk_xasprintf("GET /live HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n",
                                              many);
    struct raw_answer answer = raw_exchange_text(service.port, uri);
    ck_assert_msg(answer.status == 414 || answer.status == 0, "%d", answer.status);
    raw_answer_fini(&answer);
    answer = raw_exchange_text(service.port, header);
    ck_assert_msg(answer.status == 431 || answer.status == 0, "%d", answer.status);
    raw_answer_fini(&answer);
    answer = ask(&service, "GET", "/live", "", NULL);
    ck_assert_int_eq(answer.status, 200);
    raw_answer_fini(&answer);
    free(many);
    service_stop(&service);
}
END_TEST

struct body_case {
    const char *name, *body;
    int status;
};
static const struct body_case bodies[] = {
    {"not JSON", "hello", 400},
    {"cut JSON", "{\"a\":", 400},
    {"trailing bytes", "{\"a\":1} x", 400},
    {"two keys", "{\"a\":1,\"a\":2}", 400},
    {"not UTF-8", "{\"a\":\"\xff\"}", 400},
    {"NUL escape", "{\"a\":\"\\u0000\"}", 400},
    {"nothing", "", 422},
    {"null", "null", 422},
    {"list", "[]", 422},
    {"missing member", "{}", 422},
    {"wrong type", "{\"a\":\"1\"}", 422},
    {"unknown member", "{\"a\":1,\"b\":2}", 422},
    {"wrong type deep within", "{\"a\":1,\"list\":[{\"b\":\"x\"},{\"b\":5}]}", 422},
};

START_TEST(test_body)
{
    struct service service = {0};
    service_start(&service, NULL);
    struct raw_answer answer = ask(&service, "POST", "/api/v1/echo",
                                   "Content-Type: application/json\r\n", bodies[_i].body);
    ck_assert_msg(answer.status == bodies[_i].status, "%s: %s", bodies[_i].name, answer.bytes);
    json_auto_t *body = json_loads(answer.body, 0, NULL);
    ck_assert_msg(json_is_string(json_object_get(body, "error")) &&
                      json_is_string(json_object_get(body, "type")),
                  "%s: %s", bodies[_i].name, answer.body);
    ck_assert_int_eq(service.calls, 0);
    raw_answer_fini(&answer);
    service_stop(&service);
}
END_TEST

START_TEST(test_deep_json)
{
    struct service service = {0};
    service_start(&service, NULL);
    char deep[40001];
    memset(deep, '[', 40000);
    deep[40000] = '\0';
    struct raw_answer answer = ask(&service, "POST", "/api/v1/echo",
                                   "Content-Type: application/json\r\n", deep);
    ck_assert_int_eq(answer.status, 400);
    ck_assert_int_eq(service.calls, 0);
    raw_answer_fini(&answer);
    service_stop(&service);
}
END_TEST

/* Too large by its length: refused before it is read; the client, which sends it all the same,
 * still gets the answer. */
START_TEST(test_oversize_length)
{
    struct service service = {0};
    service_start(&service, NULL);
    size_t len = 64 << 20;
    trk_autofree char *body = trk_xmalloc(len + 1);
    memset(body, ' ', len);
    body[len] = '\0';
    struct raw_answer answer = ask(&service, "POST", "/api/v1/echo",
                                   "Content-Type: application/json\r\n", body);
    ck_assert_int_eq(answer.status, 413);
    ck_assert_msg(strstr(answer.body, "300000") != NULL, "%s", answer.body);
    ck_assert(answer.is_closed);
    ck_assert_int_eq(service.calls, 0);
    raw_answer_fini(&answer);
    service_stop(&service);
}
END_TEST

START_TEST(test_oversize_chunked)
{
    struct service service = {0};
    service_start(&service, NULL);
    int fd = raw_dial(service.port);
    ck_assert(raw_send(fd, POST "Transfer-Encoding: chunked\r\n\r\n",
                       strlen(POST "Transfer-Encoding: chunked\r\n\r\n")));
    char chunk[0x1000 + 8];
    memset(chunk, ' ', sizeof(chunk));
    memcpy(chunk, "1000\r\n", 6);
    memcpy(chunk + 6 + 0x1000, "\r\n", 2);
    for (int i = 0; i < 1000 && raw_send(fd, chunk, sizeof(chunk)); i++) {
    }
    struct raw_answer answer = raw_read(fd, RAW_DEADLINE_MS);
    (void)close(fd);
    ck_assert_int_eq(answer.status, 413);
    ck_assert_uint_eq(answer.answers, 1);
    ck_assert_msg(strstr(answer.body, "\"TooLarge\"") != NULL, "%s", answer.body);
    ck_assert_int_eq(service.calls, 0);
    raw_answer_fini(&answer);
    service_stop(&service);
}
END_TEST

/* The client leaves in the middle of the body. */
START_TEST(test_truncated_body)
{
    static const char *const cut[] = {
        POST "Content-Length: 100\r\n\r\n{\"a\":1}",
        POST "Transfer-Encoding: chunked\r\n\r\n7\r\n{\"a\":1}\r\n",
        POST "Transfer-Encoding: chunked\r\n\r\n7\r\n{\"a\"",
        POST "Content-Len",
    };
    struct service service = {0};
    service_start(&service, NULL);
    for (size_t i = 0; i < TRK_COUNT(cut); i++) {
        int fd = raw_dial(service.port);
        ck_assert(raw_send(fd, cut[i], strlen(cut[i])));
        ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
        struct raw_answer answer = raw_read(fd, RAW_DEADLINE_MS);
        (void)close(fd);
        ck_assert_msg(answer.is_closed && answer.status != 200, "%zu: %s", i, answer.bytes);
        raw_answer_fini(&answer);
    }
    ck_assert_int_eq(service.calls, 0);
    service_stop(&service);
}
END_TEST

/* A byte now and then keeps a connection only as long as the time limit, in head and body. */
START_TEST(test_slow)
{
    static const char *const begins[] = {"GET /live HT", POST "Content-Length: 100000\r\n\r\n"};
    struct service service = {0};
    struct trk_http_options options = service_options(&service);
    options.timeout_s = 1;
    service_start(&service, &options);
    int fd = raw_dial(service.port);
    ck_assert(raw_send(fd, begins[_i], strlen(begins[_i])));
    int64_t end = trk_now_ns() + 8 * TRK_NS_PER_S;
    bool is_open = true;
    while (is_open && trk_now_ns() < end) {
        struct raw_answer answer = raw_read(fd, 100);
        is_open = !answer.is_closed && raw_send(fd, "x", 1);
        raw_answer_fini(&answer);
    }
    (void)close(fd);
    ck_assert_msg(!is_open, "a trickling client keeps its connection");
    ck_assert_int_eq(service.calls, 0);
    service_stop(&service);
}
END_TEST

/* A client that reads nothing does not hold its thread for ever. */
START_TEST(test_slow_reader)
{
    struct service service = {0};
    struct trk_http_options options = service_options(&service);
    options.timeout_s = 1;
    service_start(&service, &options);
    int fd = raw_dial(service.port);
    ck_assert(raw_send(fd, GET "Host: x\r\n\r\n", strlen(GET "Host: x\r\n\r\n")));
    struct raw_answer first = raw_read_one(fd);
    ck_assert_int_eq(first.status, 200);
    raw_answer_fini(&first);
    static const char large[] = "GET /large HTTP/1.1\r\nHost: x\r\n\r\n";
    ck_assert(raw_send(fd, large, strlen(large)));
    struct trk_buf text;
    trk_buf_init(&text, 1 << 20);
    int64_t end = trk_now_ns() + 8 * TRK_NS_PER_S;
    do { /* both requests are over in the metrics once the server gave the second one up */
        trk_buf_reset(&text);
        ck_assert_int_eq(trk_metrics_render(service.metrics, &text), 0);
        trk_sleep_ms(20);
    } while (strstr(text.data, "commons_requests_done_total 2") == NULL && trk_now_ns() < end);
    ck_assert_msg(strstr(text.data, "commons_requests_done_total 2") != NULL, "%s", text.data);
    (void)close(fd);
    trk_buf_fini(&text);
    service_stop(&service);
}
END_TEST

/* Good requests with bytes changed, put in, taken out: whatever comes of it, the server goes on.
 * The same ones each time. */
static uint64_t dice_state = 88172645463325252ULL;
static size_t dice(size_t sides)
{
    dice_state ^= dice_state << 13; /* xorshift64 */
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return (size_t)(dice_state % sides);
}

START_TEST(test_mutations)
{
    static const char *const seeds[] = {
        "GET /api/v1/hello/a%20b?n=5&flag=yes HTTP/1.1\r\nHost: x\r\nCookie: session=a%20b\r\n\r\n",
        POST "Content-Length: 33\r\n\r\n{\"a\":1,\"list\":[{\"b\":\"x\"},{\"b\":5}]}",
        POST "Transfer-Encoding: chunked\r\n\r\n7\r\n{\"a\":1}\r\n0\r\n\r\n",
        "PUT /api/v1/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nREFUSEabcd",
        "GET /stream HTTP/1.0\r\n\r\n",
    };
    static const char *const pieces[] = {"\r\n",
                                         "%",
                                         "%2f",
                                         "..",
                                         "/",
                                         "[",
                                         " ",
                                         "\xff",
                                         "?",
                                         "=",
                                         "Content-Length: 3\r\n",
                                         "99999999999999999999"};
    struct service service = {0};
    service_start(&service, NULL);
    for (int i = 0; i < 400; i++) {
        const char *seed = seeds[dice(TRK_COUNT(seeds))];
        struct trk_buf bytes;
        trk_buf_init(&bytes, 4096);
        size_t cut = dice(strlen(seed));
        const char *piece = pieces[dice(TRK_COUNT(pieces))];
        (void)trk_buf_add(&bytes, seed, cut);
        (void)trk_buf_adds(&bytes, dice(2) == 0 ? piece : "");
        (void)trk_buf_adds(&bytes, seed + cut + (dice(2) == 0 ? 1 : 0));
        bytes.data[dice(bytes.len)] = (char)dice(256);
        int fd = raw_dial(service.port);
        (void)raw_send(fd, bytes.data, bytes.len);
        (void)shutdown(fd, SHUT_WR); /* so that each ends at once, whole or not */
        struct raw_answer answer = raw_read(fd, RAW_DEADLINE_MS);
        ck_assert_msg(answer.is_closed, "no end: %s", bytes.data);
        raw_answer_fini(&answer);
        (void)close(fd);
        trk_buf_fini(&bytes);
    }
    struct raw_answer answer = ask(&service, "GET", "/live", "", NULL);
    ck_assert_int_eq(answer.status, 200);
    raw_answer_fini(&answer);
    service_stop(&service);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http_attack");
    TCase *tcase = tcase_create("attacks");
    tcase_add_loop_test(tcase, test_malformed, 0, (int)TRK_COUNT(attacks));
    tcase_add_loop_test(tcase, test_path, 0, (int)TRK_COUNT(paths));
    tcase_add_loop_test(tcase, test_body, 0, (int)TRK_COUNT(bodies));
    tcase_add_test(tcase, test_mutations);
    tcase_add_test(tcase, test_large_head);
    tcase_add_test(tcase, test_deep_json);
    tcase_add_test(tcase, test_oversize_length);
    tcase_add_test(tcase, test_oversize_chunked);
    tcase_add_test(tcase, test_truncated_body);
    tcase_add_loop_test(tcase, test_slow, 0, 2);
    tcase_add_test(tcase, test_slow_reader);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? 1 : 0;
}
