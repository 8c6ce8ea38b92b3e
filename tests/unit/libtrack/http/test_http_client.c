/* The HTTP client against peers that answer well, badly, slowly or not at all. */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/http/http_client.h"
#include "tests/unit/support/raw_http.h"

static struct trk_http_client *client;
static struct trk_err err;
static struct trk_http_answer answer;

static void setup(void)
{
    trk_json_init();
    client = trk_http_client_new();
    err = (struct trk_err){0};
    answer = (struct trk_http_answer){0};
}

static void teardown(void)
{
    trk_http_answer_fini(&answer);
    trk_http_client_free(client);
}

static struct raw_peer *peer_of(const char *bytes)
{
    return raw_peer_start(&(struct raw_peer_options){.bytes = bytes, .len = strlen(bytes)});
}

/* Calls a path of the peer; `call` may be NULL. */
static int call_peer(const struct raw_peer *peer, const struct trk_http_call *call)
{
    struct trk_http_call own = call != NULL ? *call : (struct trk_http_call){0};
    trk_autofree char *url = trk_xasprintf("http://127.0.0.1:%d/path?q=1", raw_peer_port(peer));
    own.url = url;
    trk_http_answer_fini(&answer);
    return trk_http_call(client, &own, &answer, &err);
}

START_TEST(test_get)
{
    struct raw_peer *peer = peer_of(
        "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nX-Some:  a b \r\n"
        "Content-Length: 7\r\n\r\n{\"a\":1}");
    static const char *const headers[] = {"X-One: 1", "Accept: text/x", NULL};
    struct trk_http_call call = {.headers = headers, .auth_token = "tok"};
    ck_assert_msg(call_peer(peer, &call) == 0, "%s", err.text);
    ck_assert_int_eq(answer.status, 404);
    ck_assert_str_eq(answer.content_type, "application/json");
    ck_assert_str_eq(answer.body, "{\"a\":1}");
    ck_assert_uint_eq(answer.body_len, 7);
    char value[16];
    ck_assert(trk_http_answer_header(&answer, "x-some", value, sizeof(value)));
    ck_assert_str_eq(value, "a b");
    ck_assert(!trk_http_answer_header(&answer, "x-som", value, sizeof(value)));
    json_auto_t *body = NULL;
    ck_assert_int_eq(trk_http_answer_json(&answer, &body, &err), 0);
    ck_assert_int_eq(json_integer_value(json_object_get(body, "a")), 1);
    const char *request = raw_peer_request(peer);
    ck_assert_msg(strncmp(request, "GET /path?q=1 HTTP/1.1\r\n", 24) == 0, "%s", request);
    ck_assert_ptr_nonnull(strstr(request, "\r\nX-One: 1\r\n"));
    ck_assert_ptr_nonnull(strstr(request, "\r\nX-Racetrack-Auth: tok\r\n"));
    ck_assert_ptr_null(strstr(request, "Content-Length"));
    raw_peer_stop(peer);
}
END_TEST

static const char fine[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

START_TEST(test_bodies)
{
    struct raw_peer *peer = peer_of(fine);
    json_auto_t *json = json_pack("{s:s}", "k", "\xC3\xB6");
    struct trk_http_call call = {.method = "POST", .json = json};
    ck_assert_int_eq(call_peer(peer, &call), 0);
    const char *request = raw_peer_request(peer);
    ck_assert_msg(strncmp(request, "POST ", 5) == 0 &&
                      strstr(request, "\r\nContent-Type: application/json\r\n") != NULL &&
                      strstr(request, "\r\n\r\n{\"k\":\"\xC3\xB6\"}") != NULL,
                  "%s", request);
    call = (struct trk_http_call){
        .method = "PATCH", .body = "a=b", .body_len = 3, .content_type = "text/x"};
    ck_assert_int_eq(call_peer(peer, &call), 0);
    request = raw_peer_request(peer);
    ck_assert_msg(strncmp(request, "PATCH ", 6) == 0 &&
                      strstr(request, "\r\nContent-Type: text/x\r\n") != NULL &&
                      strstr(request, "\r\nContent-Length: 3\r\n") != NULL &&
                      strstr(request, "\r\n\r\na=b") != NULL,
                  "%s", request);
    call = (struct trk_http_call){.method = "DELETE"};
    ck_assert_int_eq(call_peer(peer, &call), 0);
    ck_assert_int_eq(strncmp(raw_peer_request(peer), "DELETE ", 7), 0);
    call = (struct trk_http_call){.method = "PUT"};
    ck_assert_int_eq(call_peer(peer, &call), 0);
    request = raw_peer_request(peer);
    ck_assert_msg(strncmp(request, "PUT ", 4) == 0 &&
                      strstr(request, "\r\nContent-Length: 0\r\n") != NULL,
                  "%s", request);
    raw_peer_stop(peer);
}
END_TEST

START_TEST(test_body_from_file)
{
    struct raw_peer *peer = peer_of(fine);
    trk_autofree char *path = trk_xasprintf("%s/body", getenv("TEST_TMP"));
    trk_autoclose int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, 3 << 20), 0);
    ck_assert_int_eq(pwrite(fd, "HEADsome bytes", 14, 0), 14);
    ck_assert_int_eq(lseek(fd, 4, SEEK_SET), 4);
    struct trk_http_call call = {.method = "PUT", .body_fd = fd, .body_fd_size = 10};
    ck_assert_msg(call_peer(peer, &call) == 0, "%s", err.text);
    const char *request = raw_peer_request(peer);
    ck_assert_msg(strncmp(request, "PUT ", 4) == 0 &&
                      strstr(request, "\r\nContent-Length: 10\r\n") != NULL &&
                      strstr(request, "\r\n\r\nsome bytes") != NULL,
                  "%s", request);
    /* a large one asks before it sends (100-continue) */
    ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
    call.body_fd_size = 3 << 20;
    ck_assert_msg(call_peer(peer, &call) == 0, "%s", err.text);
    ck_assert_int_eq(answer.status, 200);
    /* the file is shorter than said */
    ck_assert_int_eq(lseek(fd, 100, SEEK_SET), 100);
    ck_assert_int_eq(call_peer(peer, &call), TRK_INTERNAL);
    ck_assert_msg(strstr(err.text, "100 bytes too early") != NULL, "%s", err.text);
    raw_peer_stop(peer);
}
END_TEST

START_TEST(test_connection_is_kept)
{
    struct raw_peer *peer = raw_peer_start(
        &(struct raw_peer_options){.bytes = fine, .len = strlen(fine), .is_persistent = true});
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(call_peer(peer, NULL), 0);
    }
    ck_assert_uint_eq(raw_peer_connections(peer), 1);
    raw_peer_stop(peer);
}
END_TEST

/* The peer closes after each answer without saying so: the next call dials again. */
START_TEST(test_stale_connection)
{
    struct raw_peer *peer = peer_of(fine);
    for (int i = 0; i < 5; i++) {
        struct trk_http_call call = {.method = "POST", .body = "x", .body_len = 1};
        ck_assert_msg(call_peer(peer, &call) == 0, "%s", err.text);
    }
    ck_assert_uint_eq(raw_peer_connections(peer), 5);
    raw_peer_stop(peer);
}
END_TEST

START_TEST(test_continue_and_interim)
{
    struct raw_peer *peer = peer_of("HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\nHTTP/1.1 200 "
                                    "OK\r\nX-Late: 2\r\nContent-Length: 0\r\n\r\n");
    ck_assert_int_eq(call_peer(peer, NULL), 0);
    ck_assert_int_eq(answer.status, 200);
    char value[8];
    ck_assert(!trk_http_answer_header(&answer, "x-early", value, sizeof(value)));
    ck_assert(trk_http_answer_header(&answer, "x-late", value, sizeof(value)));
    ck_assert_str_eq(answer.body, "");
    raw_peer_stop(peer);
}
END_TEST

START_TEST(test_trailers)
{
    struct raw_peer *peer = peer_of(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
        "0\r\nX-Trailer: 1\r\n\r\n");
    ck_assert_msg(call_peer(peer, NULL) == 0, "%s", err.text);
    ck_assert_str_eq(answer.body, "ok");
    raw_peer_stop(peer);
}
END_TEST

START_TEST(test_no_redirect)
{
    struct raw_peer *peer = peer_of(
        "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: "
        "0\r\n\r\n");
    ck_assert_int_eq(call_peer(peer, NULL), 0);
    ck_assert_int_eq(answer.status, 302);
    ck_assert_uint_eq(raw_peer_connections(peer), 1);
    raw_peer_stop(peer);
}
END_TEST

struct bad_answer {
    const char *name, *bytes;
    int code;
};
static const struct bad_answer bad_answers[] = {
    {"nothing", "", TRK_BAD_GATEWAY},
    {"garbage", "\x01\x02 garbage\r\n\r\n", TRK_BAD_GATEWAY},
    {"HTTP/0.9", "just text", TRK_BAD_GATEWAY},
    {"cut head", "HTTP/1.1 200 OK\r\nContent-Le", TRK_BAD_GATEWAY},
    {"cut body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", TRK_BAD_GATEWAY},
    {"cut chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123", TRK_BAD_GATEWAY},
    {"no last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
     TRK_BAD_GATEWAY},
    {"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n12345\r\n",
     TRK_BAD_GATEWAY},
};

START_TEST(test_bad_answer)
{
    const struct bad_answer *bad = &bad_answers[_i];
    struct raw_peer *peer = peer_of(bad->bytes);
    int rc = call_peer(peer, NULL);
    ck_assert_msg(rc == bad->code, "%s: %d %s", bad->name, rc, err.text);
    ck_assert_msg(strstr(err.text, "127.0.0.1") != NULL, "%s: %s", bad->name, err.text);
    ck_assert_ptr_null(answer.body); /* untouched on failure */
    raw_peer_stop(peer);
}
END_TEST

START_TEST(test_too_large)
{
    struct raw_peer *peer = peer_of("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n12345678901");
    struct trk_http_call call = {.answer_max_bytes = 11};
    ck_assert_int_eq(call_peer(peer, &call), 0);
    call.answer_max_bytes = 10;
    ck_assert_int_eq(call_peer(peer, &call), TRK_TOO_LARGE);
    ck_assert_msg(strstr(err.text, "10 bytes") != NULL, "%s", err.text);
    raw_peer_stop(peer);
    trk_autofree char *many = trk_xmalloc(200001);
    memset(many, 'h', 200000);
    many[200000] = '\0';
    trk_autofree char *bytes = trk_xasprintf("HTTP/1.1 200 OK\r\nX: %s\r\n\r\n", many);
    peer = peer_of(bytes);
    ck_assert_int_eq(call_peer(peer, NULL), TRK_BAD_GATEWAY);
    raw_peer_stop(peer);
}
END_TEST

START_TEST(test_timeouts)
{
    struct raw_peer *peer = raw_peer_start(
        &(struct raw_peer_options){.bytes = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1",
                                   .len = strlen("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1"),
                                   .holds = true});
    struct trk_http_call call = {.timeout_ms = 200};
    int64_t begun = trk_now_ns();
    ck_assert_int_eq(call_peer(peer, &call), TRK_TIMEOUT);
    ck_assert_int_lt(trk_now_ns() - begun, 5 * TRK_NS_PER_S);
    call = (struct trk_http_call){.idle_timeout_ms = 200, .timeout_ms = 20000};
    ck_assert_int_eq(call_peer(peer, &call), TRK_TIMEOUT);
    ck_assert_msg(strstr(err.text, "no byte came") != NULL, "%s", err.text);
    ck_assert_int_lt(trk_now_ns() - begun, 9 * TRK_NS_PER_S);
    raw_peer_stop(peer);
}
END_TEST

static atomic_bool cancel;
static void *cancel_soon(void *arg)
{
    struct raw_peer *peer = arg;
    int64_t end = trk_now_ns() + RAW_DEADLINE_MS * TRK_NS_PER_MS;
    while (raw_peer_request(peer)[0] == '\0' && trk_now_ns() < end) {
        trk_sleep_ms(2);
    }
    atomic_store(&cancel, true);
    return NULL;
}

START_TEST(test_cancel)
{
    struct raw_peer *peer = raw_peer_start(&(struct raw_peer_options){
        .bytes = "HTTP/1.1 200 OK\r\n", .len = strlen("HTTP/1.1 200 OK\r\n"), .holds = true});
    pthread_t thread;
    cancel = false;
    ck_assert_int_eq(pthread_create(&thread, NULL, cancel_soon, peer), 0);
    struct trk_http_call call = {.cancel = &cancel, .timeout_ms = 20000};
    int64_t begun = trk_now_ns();
    ck_assert_int_eq(call_peer(peer, &call), TRK_CANCELLED);
    ck_assert_int_lt(trk_now_ns() - begun, 8 * TRK_NS_PER_S);
    (void)pthread_join(thread, NULL);
    raw_peer_stop(peer);
}
END_TEST

START_TEST(test_unreachable)
{
    struct raw_peer *peer = peer_of(fine);
    int port = raw_peer_port(peer);
    raw_peer_stop(peer); /* nobody listens there any more */
    trk_autofree char *url = trk_xasprintf("http://user:secret@127.0.0.1:%d/", port);
    struct trk_http_call call = {.url = url};
    ck_assert_int_eq(trk_http_call(client, &call, &answer, &err), TRK_UNAVAILABLE);
    ck_assert_msg(strstr(err.text, "cannot be reached") != NULL, "%s", err.text);
    ck_assert_msg(strstr(err.text, "secret") == NULL, "%s", err.text);
}
END_TEST

START_TEST(test_bad_urls)
{
    static const struct {
        const char *url;
        int code;
    } cases[] = {
        {"", TRK_INVALID},
        {"file:///etc/passwd", TRK_INVALID},
        {"ftp://127.0.0.1/", TRK_INVALID},
        {"gopher://127.0.0.1/", TRK_INVALID},
        {"http://no-such-host.invalid/", TRK_UNAVAILABLE},
    };
    for (size_t i = 0; i < TRK_COUNT(cases); i++) {
        struct trk_http_call call = {.url = cases[i].url};
        int rc = trk_http_call(client, &call, &answer, &err);
        ck_assert_msg(rc == cases[i].code, "%s: %d %s", cases[i].url, rc, err.text);
    }
}
END_TEST

/* The environment's proxy is not used. */
START_TEST(test_no_proxy)
{
    struct raw_peer *peer = peer_of(fine);
    ck_assert_int_eq(setenv("http_proxy", "http://127.0.0.1:1/", 1), 0);
    ck_assert_msg(call_peer(peer, NULL) == 0, "%s", err.text);
    (void)unsetenv("http_proxy");
    raw_peer_stop(peer);
}
END_TEST

struct collected {
    char text[64];
    int status;
    int fail_with;
};
static int collect(void *ctx, int status, const char *bytes, size_t len, struct trk_err *e)
{
    struct collected *c = ctx;
    c->status = status;
    if (c->fail_with != 0) {
        return trk_err_set(e, (enum trk_code)c->fail_with, "refused by the reader");
    }
    size_t used = strlen(c->text);
    ck_assert_uint_lt(used + len, sizeof(c->text));
    memcpy(c->text + used, bytes, len);
    return 0;
}

START_TEST(test_streaming)
{
    static const char bytes[] = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
                                "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    struct raw_peer *peer = raw_peer_start(
        &(struct raw_peer_options){.bytes = bytes, .len = strlen(bytes), .piece = 1});
    struct collected c = {0};
    struct trk_http_call call = {
        .on_data = collect, .ctx = &c, .timeout_ms = -1, .idle_timeout_ms = 5000};
    ck_assert_msg(call_peer(peer, &call) == 0, "%s", err.text);
    ck_assert_str_eq(c.text, "abcdef");
    ck_assert_int_eq(c.status, 201);
    ck_assert_str_eq(answer.body, "");
    c = (struct collected){.fail_with = TRK_CONFLICT};
    ck_assert_int_eq(call_peer(peer, &call), TRK_CONFLICT);
    ck_assert_msg(strstr(err.text, "refused by the reader") != NULL, "%s", err.text);
    raw_peer_stop(peer);
}
END_TEST

static int feed_sse(void *ctx, int status, const char *bytes, size_t len, struct trk_err *e)
{
    (void)status;
    return trk_sse_feed(ctx, bytes, len, e);
}
static int take_event(void *ctx, const char *event, const char *id, const char *data,
                      struct trk_err *e)
{
    (void)e;
    return trk_buf_addf(ctx, "%s|%s|%s;", event, id, data);
}

START_TEST(test_event_stream)
{
    static const char bytes[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
                                "event: hello\ndata: {\"last_id\":3}\n\n: beat\n\nid: 4\nevent: "
                                "job_changed\ndata: {}\n\n";
    struct raw_peer *peer = raw_peer_start(
        &(struct raw_peer_options){.bytes = bytes, .len = strlen(bytes), .piece = 7});
    struct trk_buf events;
    trk_buf_init(&events, 4096);
    struct trk_sse *sse = trk_sse_new(take_event, &events);
    struct trk_http_call call = {.on_data = feed_sse, .ctx = sse, .timeout_ms = -1};
    ck_assert_int_eq(call_peer(peer, &call), 0);
    ck_assert_str_eq(events.data, "hello||{\"last_id\":3};job_changed|4|{};");
    trk_sse_free(sse);
    trk_buf_fini(&events);
    raw_peer_stop(peer);
}
END_TEST

START_TEST(test_answer_err)
{
    static const struct {
        int status;
        const char *body;
        int code;
        const char *text;
    } cases[] = {
        {404, "{\"error\":\"job x not found\",\"type\":\"EntityNotFound\"}", TRK_NOT_FOUND,
         "job x not found"},
        {422, "{\"detail\":[{\"msg\":\"no\"}]}", TRK_SCHEMA, "[{\"msg\":\"no\"}]"},
        {404, "{\"detail\":\"Not Found\"}", TRK_NOT_FOUND, "Not Found"},
        {401, "{\"error\":\"no token\"}", TRK_UNAUTHENTICATED, "no token"},
        {409, "{\"error\":5}", TRK_CONFLICT, "status 409: {\"error\":5}"},
        {500, "<html>\nboom\x01</html>", TRK_BAD_GATEWAY, "status 500: <html> boom </html>"},
        {503, "", TRK_UNAVAILABLE, "status 503"},
        {418, "[]", TRK_INVALID, "status 418: []"},
        {204, "", TRK_BAD_GATEWAY, "status 204"},
    };
    for (size_t i = 0; i < TRK_COUNT(cases); i++) {
        struct trk_http_answer a = {.status = cases[i].status,
                                    .body = trk_xstrdup(cases[i].body),
                                    .body_len = strlen(cases[i].body)};
        ck_assert_int_eq(trk_http_answer_err(&a, &err), cases[i].code);
        ck_assert_str_eq(err.text, cases[i].text);
        json_t *value = NULL;
        if (i == 5) {
            ck_assert_int_eq(trk_http_answer_json(&a, &value, &err), TRK_BAD_GATEWAY);
            ck_assert_ptr_null(value);
        }
        trk_http_answer_fini(&a);
    }
}
END_TEST

/* One client a thread, at once. */
static void *call_many(void *arg)
{
    struct trk_http_client *own = trk_http_client_new();
    intptr_t failures = 0;
    for (int i = 0; i < 20; i++) {
        struct trk_http_call call = {.url = arg};
        struct trk_http_answer a = {0};
        failures += trk_http_call(own, &call, &a, NULL) != 0 || a.status != 200;
        trk_http_answer_fini(&a);
    }
    trk_http_client_free(own);
    return (void *)failures;
}

START_TEST(test_threads)
{
    struct raw_peer *peer = peer_of(fine);
    trk_autofree char *url = trk_xasprintf("http://127.0.0.1:%d/", raw_peer_port(peer));
    pthread_t threads[4];
    for (size_t i = 0; i < TRK_COUNT(threads); i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, call_many, url), 0);
    }
    for (size_t i = 0; i < TRK_COUNT(threads); i++) {
        void *failures = NULL;
        (void)pthread_join(threads[i], &failures);
        ck_assert_ptr_null(failures);
    }
    raw_peer_stop(peer);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http_client");
    TCase *tcase = tcase_create("client");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_get);
    tcase_add_test(tcase, test_bodies);
    tcase_add_test(tcase, test_body_from_file);
    tcase_add_test(tcase, test_connection_is_kept);
    tcase_add_test(tcase, test_stale_connection);
    tcase_add_test(tcase, test_continue_and_interim);
    tcase_add_test(tcase, test_trailers);
    tcase_add_test(tcase, test_no_redirect);
    tcase_add_loop_test(tcase, test_bad_answer, 0, (int)TRK_COUNT(bad_answers));
    tcase_add_test(tcase, test_too_large);
    tcase_add_test(tcase, test_timeouts);
    tcase_add_test(tcase, test_cancel);
    tcase_add_test(tcase, test_unreachable);
    tcase_add_test(tcase, test_bad_urls);
    tcase_add_test(tcase, test_no_proxy);
    tcase_add_test(tcase, test_streaming);
    tcase_add_test(tcase, test_event_stream);
    tcase_add_test(tcase, test_answer_err);
    tcase_add_test(tcase, test_threads);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? 1 : 0;
}
