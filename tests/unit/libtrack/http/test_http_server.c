/* The HTTP server as its clients see it. */
#include "tests/unit/libtrack/http/http_service.h"

#include <ctype.h>
#include <pthread.h>

#include "libtrack/http/http_client.h"

static struct service service;

static void setup(void)
{
    service = (struct service){0};
    service_start(&service, NULL);
}

static void teardown(void)
{
    service_stop(&service);
}

static json_t *body_of(const struct raw_answer *answer)
{
    json_error_t fault;
    json_t *body = json_loads(answer->body, JSON_DECODE_ANY, &fault);
    ck_assert_msg(body != NULL, "%s: %s", fault.text, answer->bytes);
    return body;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text == NULL ? "(none)" : text;
}

START_TEST(test_get)
{
    struct raw_answer answer = ask(&service, "GET",
                                   "/api/v1/hello/J%C3%B6rg%20x?n=5&text=a+b%26c&flag=yes",
                                   "Cookie: a=b; session=x%20y; z\r\n", NULL);
    ck_assert_int_eq(answer.status, 200);
    ck_assert_str_eq(raw_header(&answer, "Content-Type"), "application/json");
    ck_assert_str_eq(raw_header(&answer, "X-Content-Type-Options"), "nosniff");
    ck_assert_str_eq(raw_header(&answer, "Access-Control-Allow-Origin"), "");
    json_auto_t *body = body_of(&answer);
    ck_assert_str_eq(text_of(body, "name"), "J\xC3\xB6rg x");
    ck_assert_int_eq(json_integer_value(json_object_get(body, "n")), 5);
    ck_assert(json_is_true(json_object_get(body, "flag")));
    ck_assert_str_eq(text_of(body, "text"), "a b&c");
    ck_assert_str_eq(text_of(body, "cookie"), "x y");
    ck_assert_str_eq(text_of(body, "path"), "/api/v1/hello/J\xC3\xB6rg x");
    ck_assert_str_eq(text_of(body, "peer"), "127.0.0.1");
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_defaults)
{
    struct raw_answer answer = ask(&service, "GET", "/api/v1/hello/x?unknown=1&&=", "", NULL);
    ck_assert_int_eq(answer.status, 200);
    json_auto_t *body = body_of(&answer);
    ck_assert_int_eq(json_integer_value(json_object_get(body, "n")), 7);
    ck_assert(json_is_false(json_object_get(body, "flag")));
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_head_request)
{
    struct raw_answer answer = ask(&service, "HEAD", "/live", "", NULL);
    ck_assert_int_eq(answer.status, 200);
    ck_assert_str_eq(answer.body, "");
    ck_assert_int_eq(atoi(raw_header(&answer, "Content-Length")),
                     (int)strlen("{\"service\":\"test\",\"live\":true}"));
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_mounts)
{
    static const struct {
        const char *target, *location;
        int status;
    } cases[] = {
        {"/lifecycle/live", "", 200},
        {"/lifecycle/ready", "", 200},
        {"/lifecycle", "/lifecycle/", 307},
        {"/lifecycle?a=b", "/lifecycle/?a=b", 307},
        {"/lifecycle/", "", 200},
        {"/live/", "/live", 307},
        {"/live/?a=b%20c", "/live?a=b%20c", 307},
        {"/lifecycle/live/", "/lifecycle/live", 307},
        {"/v2/", "", 200},
        {"/v2", "/v2/", 307},
        {"/api/v1/files/", "", 200},
        {"/api/v1/files/a/b", "", 200},
        {"http://test/live", "", 200},
        {"/api/v1/h%65llo/x", "", 200},
    };
    for (size_t i = 0; i < TRK_COUNT(cases); i++) {
        struct raw_answer answer = ask(&service, "GET", cases[i].target, "", NULL);
        ck_assert_msg(answer.status == cases[i].status, "%s: %s", cases[i].target, answer.bytes);
        ck_assert_str_eq(raw_header(&answer, "Location"), cases[i].location);
        raw_answer_fini(&answer);
    }
}
END_TEST

START_TEST(test_no_route)
{
    struct raw_answer answer = ask(&service, "GET", "/api/v1/nothing", "", NULL);
    ck_assert_int_eq(answer.status, 404);
    json_auto_t *body = body_of(&answer);
    ck_assert_str_eq(text_of(body, "type"), "EntityNotFound");
    ck_assert_str_eq(text_of(body, "detail"), "Not Found");
    raw_answer_fini(&answer);
    answer = ask(&service, "PATCH", "/api/v1/hello/x", "", NULL);
    ck_assert_int_eq(answer.status, 405);
    ck_assert_str_eq(raw_header(&answer, "Allow"), "GET, HEAD, DELETE");
    raw_answer_fini(&answer);
    ck_assert_int_eq(service.calls, 0);
}
END_TEST

START_TEST(test_echo)
{
    struct raw_answer answer = ask(&service, "POST", "/api/v1/echo",
                                   "Content-Type: application/json; charset=utf-8\r\n",
                                   "{\"a\": 1, \"list\": [{\"b\": \"x\"}]}");
    ck_assert_int_eq(answer.status, 200);
    ck_assert_str_eq(answer.body, "{\"a\":1,\"list\":[{\"b\":\"x\"}]}");
    raw_answer_fini(&answer);
    answer = ask(&service, "POST", "/api/v1/echo", "", "{\"a\": 2}"); /* no type: taken as JSON */
    ck_assert_str_eq(answer.body, "{\"a\":2}");
    raw_answer_fini(&answer);
    answer = ask(&service, "POST", "/api/v1/echo", "Content-Type: text/plain\r\n", "{\"a\": 2}");
    ck_assert_int_eq(answer.status, 415);
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_chunked)
{
    struct raw_answer answer = raw_exchange_text(
        service.port,
        "POST /api/v1/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: "
        "Chunked\r\n\r\n3;ext=1\r\n{\"a\r\n004\r\n\":1}\r\n0\r\nTrailer: x\r\n\r\n");
    ck_assert_int_eq(answer.status, 200);
    ck_assert_str_eq(answer.body, "{\"a\":1}");
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_schema_detail)
{
    struct raw_answer answer = ask(&service, "POST", "/api/v1/echo", "",
                                   "{\"a\":\"no\",\"list\":[{\"b\":\"x\"},{\"b\":5}],\"extra\":1}");
    ck_assert_int_eq(answer.status, 422);
    json_auto_t *body = body_of(&answer);
    const json_t *detail = json_object_get(body, "detail");
    ck_assert_uint_eq(json_array_size(detail), 3);
    bool found = false;
    size_t i;
    const json_t *fault;
    json_array_foreach (detail, i, fault) {
        ck_assert(json_is_string(json_object_get(fault, "type")));
        ck_assert(json_is_string(json_object_get(fault, "msg")));
        trk_autofree char *loc = json_dumps(json_object_get(fault, "loc"), JSON_COMPACT);
        if (strcmp(loc, "[\"body\",\"list\",1,\"b\"]") == 0) {
            found = json_integer_value(json_object_get(fault, "input")) == 5;
        }
    }
    ck_assert_msg(found, "%s", answer.body);
    ck_assert_str_eq(text_of(body, "type"), "ValidationError");
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_authorize)
{
    struct raw_answer answer = ask(&service, "DELETE", "/api/v1/hello/x", "", NULL);
    ck_assert_int_eq(answer.status, 401);
    ck_assert_str_eq(raw_header(&answer, "WWW-Authenticate"), "Basic realm=\"racetrack\"");
    raw_answer_fini(&answer);
    answer = ask(&service, "DELETE", "/api/v1/hello/x", "X-Racetrack-Auth: bad\r\n", NULL);
    ck_assert_int_eq(answer.status, 403);
    raw_answer_fini(&answer);
    ck_assert_int_eq(service.calls, 0);
    answer = ask(&service, "DELETE", "/api/v1/hello/x", "x-racetrack-AUTH: good\r\n", NULL);
    ck_assert_int_eq(answer.status, 200);
    json_auto_t *body = body_of(&answer);
    ck_assert_str_eq(text_of(body, "caller"), "alice");
    raw_answer_fini(&answer);
}
END_TEST

/* Nobody without a token makes the server read a body. */
START_TEST(test_authorize_before_body)
{
    int fd = raw_dial(service.port);
    static const char head[] = "POST /api/v1/private HTTP/1.1\r\nHost: x\r\n"
                               "Content-Length: 1000000\r\n\r\n";
    ck_assert(raw_send(fd, head, strlen(head))); /* and not one byte of it */
    struct raw_answer answer = raw_read(fd, RAW_DEADLINE_MS);
    ck_assert_int_eq(answer.status, 401);
    ck_assert_str_eq(raw_header(&answer, "Connection"), "close");
    ck_assert(answer.is_closed);
    (void)close(fd);
    raw_answer_fini(&answer);
}
END_TEST

/* A small rejected body is dropped and the connection serves the next request. */
START_TEST(test_connection_survives_rejection)
{
    struct raw_answer answer = raw_exchange_text(
        service.port,
        "POST /api/v1/private HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{\"a\":1}"
        "GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    ck_assert_int_eq(answer.status, 401);
    ck_assert_uint_eq(answer.answers, 2);
    ck_assert(strstr(answer.body, "\"live\":true") != NULL);
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_expect_continue)
{
    int fd = raw_dial(service.port);
    static const char fine[] = "POST /api/v1/echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                               "Content-Length: 7\r\nConnection: close\r\n\r\n";
    ck_assert(raw_send(fd, fine, strlen(fine)));
    char line[26] = "";
    ck_assert_int_eq(recv(fd, line, 25, MSG_WAITALL), 25);
    ck_assert_str_eq(line, "HTTP/1.1 100 Continue\r\n\r\n");
    ck_assert(raw_send(fd, "{\"a\":1}", 7));
    struct raw_answer answer = raw_read(fd, RAW_DEADLINE_MS);
    ck_assert_int_eq(answer.status, 200);
    (void)close(fd);
    raw_answer_fini(&answer);
    fd = raw_dial(service.port);
    static const char refused[] = "POST /api/v1/private HTTP/1.1\r\nHost: x\r\n"
                                  "Expect: 100-continue\r\nContent-Length: 7\r\n\r\n";
    ck_assert(raw_send(fd, refused, strlen(refused)));
    answer = raw_read(fd, RAW_DEADLINE_MS);
    ck_assert_msg(answer.status == 401 && answer.answers == 1, "%s", answer.bytes);
    (void)close(fd);
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_pipelined)
{
    struct raw_answer answer = raw_exchange_text(
        service.port, "GET /live HTTP/1.1\r\nHost: x\r\n\r\nGET /ready HTTP/1.1\r\nHost: x\r\n\r\n"
                      "POST /api/v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nConnection: "
                      "close\r\n\r\n{\"a\":3}");
    ck_assert_uint_eq(answer.answers, 3);
    ck_assert_msg(answer.len > 7 && strcmp(answer.bytes + answer.len - 7, "{\"a\":3}") == 0, "%s",
                  answer.bytes);
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_http_1_0)
{
    struct raw_answer answer = raw_exchange_text(service.port, "GET /live HTTP/1.0\r\n\r\n");
    ck_assert_int_eq(answer.status, 200);
    ck_assert(answer.is_closed);
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_raw_body)
{
    struct raw_answer answer = ask(&service, "POST", "/api/v1/raw", "Content-Type: text/csv\r\n",
                                   "any, bytes {");
    ck_assert_int_eq(answer.status, 201);
    ck_assert_str_eq(raw_header(&answer, "Content-Type"), "application/x-test");
    ck_assert_str_eq(answer.body, "any, bytes {");
    raw_answer_fini(&answer);
}
END_TEST

/* The client may have an answer before its request has ended in the server. */
static void wait_for_count(atomic_int *count, int wanted)
{
    int64_t end = trk_now_ns() + RAW_DEADLINE_MS * TRK_NS_PER_MS;
    while (atomic_load(count) < wanted && trk_now_ns() < end) {
        trk_sleep_ms(1);
    }
    ck_assert_int_eq(atomic_load(count), wanted);
}

START_TEST(test_upload)
{
    size_t len = 5 << 20;
    trk_autofree char *body = trk_xmalloc(len + 1);
    memset(body, 'u', len);
    body[len] = '\0';
    struct raw_answer answer = ask(&service, "PUT", "/api/v1/upload", "", body);
    ck_assert_int_eq(answer.status, 200);
    ck_assert_int_eq(atoi(answer.body), (int)len);
    wait_for_count(&service.uploads_ended, 1);
    raw_answer_fini(&answer);
}
END_TEST

/* on_body fails in the middle: the client gets the answer whatever it still sends. */
START_TEST(test_upload_refused)
{
    size_t len = 6 << 20;
    trk_autofree char *body = trk_xmalloc(len + 1);
    memset(body, 'u', len);
    memcpy(body + 1000, "REFUSE", 6);
    body[len] = '\0';
    struct raw_answer answer = ask(&service, "PUT", "/api/v1/upload", "", body);
    ck_assert_msg(answer.status == 409, "%s", answer.bytes);
    ck_assert_msg(strstr(answer.body, "this upload is refused") != NULL, "%s", answer.body);
    raw_answer_fini(&answer);
    answer = raw_exchange_text(service.port, "PUT /api/v1/upload HTTP/1.1\r\nHost: x\r\n"
                                             "Content-Length: 6\r\n\r\nREFUSE"
                                             "GET /live HTTP/1.1\r\nHost: x\r\nConnection: "
                                             "close\r\n\r\n");
    ck_assert_int_eq(answer.status, 409);
    ck_assert_uint_eq(answer.answers, 2); /* a small one does not cost the connection */
    raw_answer_fini(&answer);
    wait_for_count(&service.uploads_ended, 2);
    ck_assert_int_eq(service.calls, 0);
}
END_TEST

START_TEST(test_answer_that_is_no_json)
{
    struct raw_answer answer = ask(&service, "GET", "/no-json", "", NULL);
    ck_assert_int_eq(answer.status, 500);
    ck_assert_msg(strstr(answer.body, "tracing_id") != NULL, "%s", answer.body);
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_server_errors)
{
    static const struct {
        int code, status;
        const char *text;
    } cases[] = {
        {TRK_INTERNAL, 500, "internal error"},
        {TRK_UNAVAILABLE, 503, "asking the store: temporarily unavailable"},
        {TRK_TIMEOUT, 504, "asking the store: a dependency did not answer in time"},
        {TRK_BAD_GATEWAY, 502, "asking the store: a dependency gave a wrong answer"},
        {TRK_NO_SPACE, 507, "asking the store: no space left"},
    };
    for (size_t i = 0; i < TRK_COUNT(cases); i++) {
        trk_autofree char *target = trk_xasprintf("/fail?code=%d", cases[i].code);
        struct raw_answer answer = ask(&service, "GET", target, "X-Request-Tracing-Id: trace-1\r\n",
                                       NULL);
        ck_assert_int_eq(answer.status, cases[i].status);
        json_auto_t *body = body_of(&answer);
        ck_assert_msg(strstr(text_of(body, "error"), cases[i].text) != NULL, "%s", answer.body);
        ck_assert_msg(strstr(answer.bytes, "SELECT") == NULL, "%s", answer.bytes);
        ck_assert_str_eq(text_of(body, "tracing_id"), "trace-1");
        raw_answer_fini(&answer);
    }
    struct raw_answer answer = ask(&service, "GET", "/fail?code=-6", "", NULL);
    ck_assert_int_eq(answer.status, 409); /* a client's fault is told whole, without tracing id */
    json_auto_t *body = body_of(&answer);
    ck_assert_str_eq(text_of(body, "error"), "asking the store: SELECT secret FROM users");
    ck_assert_str_eq(text_of(body, "tracing_id"), "(none)");
    raw_answer_fini(&answer);
    answer = ask(&service, "GET", "/silent", "", NULL);
    ck_assert_int_eq(answer.status, 500);
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_tracing_id)
{
    static const char *const bad[] = {"", "X-Request-Tracing-Id: a b\r\n",
                                      "X-Request-Tracing-Id: <script>\r\n",
                                      "X-Request-Tracing-Id: \r\n"};
    struct raw_answer answer = ask(&service, "GET", "/live",
                                   "x-request-tracing-id: abc-123_4.5\r\n", NULL);
    ck_assert_str_eq(raw_header(&answer, "X-Request-Tracing-Id"), "abc-123_4.5");
    raw_answer_fini(&answer);
    for (size_t i = 0; i < TRK_COUNT(bad); i++) {
        answer = ask(&service, "GET", "/live", bad[i], NULL);
        const char *id = raw_header(&answer, "X-Request-Tracing-Id");
        ck_assert_uint_eq(strlen(id), 36);
        for (const char *p = id; *p != '\0'; p++) {
            ck_assert(isxdigit((unsigned char)*p) || *p == '-');
        }
        raw_answer_fini(&answer);
    }
    char longest[300];
    memset(longest, 'a', sizeof(longest));
    memcpy(longest, "X-Request-Tracing-Id: ", 22);
    memcpy(longest + 297, "\r\n", 3);
    answer = ask(&service, "GET", "/live", longest, NULL);
    ck_assert_uint_eq(strlen(raw_header(&answer, "X-Request-Tracing-Id")), 36);
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_alias)
{
    struct raw_answer answer = ask(&service, "POST", "/api/v1/fatman/echo", "", "{\"fatman_a\":1}");
    ck_assert_int_eq(answer.status, 200);
    ck_assert_str_eq(answer.body, "{\"a\":1,\"is_fatman\":true}");
    raw_answer_fini(&answer);
    answer = ask(&service, "GET", "/lifecycle/api/v1/fatman/hello/x", "", NULL);
    ck_assert_int_eq(answer.status, 200);
    ck_assert(strstr(answer.body, "is_fatman") != NULL);
    raw_answer_fini(&answer);
    answer = ask(&service, "GET", "/api/v1/fatman/hello/x/", "", NULL);
    ck_assert_str_eq(raw_header(&answer, "Location"), "/api/v1/fatman/hello/x");
    raw_answer_fini(&answer);
    answer = ask(&service, "DELETE", "/api/v1/fatman/hello/x", "", NULL);
    ck_assert_int_eq(answer.status, 401); /* the same access rule */
    raw_answer_fini(&answer);
    answer = ask(&service, "GET", "/api/v1/fatman/nothing", "", NULL);
    ck_assert_int_eq(answer.status, 404);
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_file)
{
    struct raw_answer answer = ask(&service, "GET", "/file", "", NULL);
    ck_assert_int_eq(answer.status, 200);
    ck_assert_str_eq(raw_header(&answer, "Content-Length"), "3");
    ck_assert_str_eq(answer.body, "ELF");
    raw_answer_fini(&answer);
    answer = ask(&service, "GET", "/file?size=0", "", NULL);
    ck_assert_int_eq(answer.status, 200);
    ck_assert_str_eq(raw_header(&answer, "Content-Length"), "0");
    ck_assert_str_eq(answer.body, "");
    raw_answer_fini(&answer);
}
END_TEST

START_TEST(test_stream)
{
    struct raw_answer answer = ask(&service, "GET", "/stream", "", NULL);
    ck_assert_int_eq(answer.status, 200);
    ck_assert_str_eq(raw_header(&answer, "Content-Type"), "text/event-stream");
    ck_assert_str_eq(raw_header(&answer, "Transfer-Encoding"), "chunked");
    ck_assert_msg(strstr(answer.body, "data: 2\n\n") != NULL &&
                      strstr(answer.body, "data: 0\n\n") != NULL &&
                      strstr(answer.body, "\r\n0\r\n\r\n") != NULL,
                  "%s", answer.body);
    wait_for_count(&service.streams_ended, 1);
    raw_answer_fini(&answer);
    answer = ask(&service, "GET", "/stream?breaks=true", "", NULL);
    ck_assert(answer.is_closed);
    ck_assert_msg(strstr(answer.body, "\r\n0\r\n\r\n") == NULL, "a broken stream ends as a whole");
    raw_answer_fini(&answer);
    answer = ask(&service, "HEAD", "/stream", "", NULL);
    ck_assert_str_eq(answer.body, "");
    raw_answer_fini(&answer);
}
END_TEST

/* fini runs as well when the client leaves in the middle. */
START_TEST(test_stream_left)
{
    int fd = raw_dial(service.port);
    static const char text[] = "GET /stream?count=100000000 HTTP/1.1\r\nHost: x\r\n\r\n";
    ck_assert(raw_send(fd, text, strlen(text)));
    char some[512];
    ck_assert_int_gt(recv(fd, some, sizeof(some), 0), 0);
    (void)close(fd);
    wait_for_count(&service.streams_ended, 1);
}
END_TEST

static json_t *get_json(const char *url, bool *ret_is_whole)
{
    struct trk_http_client *client = trk_http_client_new();
    struct trk_http_answer answer = {0};
    struct trk_err err = {0};
    trk_autofree char *full = trk_xasprintf("http://127.0.0.1:%d%s", service.port, url);
    struct trk_http_call call = {.method = "GET", .url = full};
    *ret_is_whole = trk_http_call(client, &call, &answer, &err) == 0;
    json_t *value = *ret_is_whole ? json_loads(answer.body, 0, NULL) : NULL;
    trk_http_answer_fini(&answer);
    trk_http_client_free(client);
    return value;
}

START_TEST(test_list)
{
    static const struct {
        const char *url;
        size_t size;
    } cases[] = {{"/list?count=0", 0}, {"/list?count=1", 1}, {"/list?count=50000", 50000}};
    bool is_whole;
    for (size_t i = 0; i < TRK_COUNT(cases); i++) {
        json_auto_t *list = get_json(cases[i].url, &is_whole);
        ck_assert(is_whole && json_is_array(list));
        ck_assert_uint_eq(json_array_size(list), cases[i].size);
    }
    json_auto_t *none = get_json("/list?count=50000&breaks=true", &is_whole);
    ck_assert_msg(!is_whole && none == NULL, "a cut list looks whole");
    struct raw_answer answer = ask(&service, "GET", "/list?count=3&breaks=true", "", NULL);
    ck_assert_int_eq(answer.status, 503); /* nothing was sent yet */
    raw_answer_fini(&answer);
    answer = ask(&service, "HEAD", "/list?count=50000", "", NULL);
    ck_assert_int_eq(answer.status, 200);
    ck_assert_str_eq(answer.body, "");
    raw_answer_fini(&answer);
    wait_for_count(&service.streams_ended, 6);
}
END_TEST

static double metric(const char *name)
{
    struct trk_buf text;
    trk_buf_init(&text, 1 << 20);
    ck_assert_int_eq(trk_metrics_render(service.metrics, &text), 0);
    trk_autofree char *line = trk_xasprintf("\n%s ", name);
    const char *at = strstr(text.data, line);
    ck_assert_msg(at != NULL, "no %s in %s", name, text.data);
    double value = strtod(at + strlen(line), NULL);
    trk_buf_fini(&text);
    return value;
}

START_TEST(test_request_metrics)
{
    for (int i = 0; i < 3; i++) {
        struct raw_answer answer = ask(&service, "GET", "/live", "", NULL);
        raw_answer_fini(&answer);
    }
    struct raw_answer answer = ask(&service, "GET", "/fail", "", NULL);
    raw_answer_fini(&answer);
    answer = ask(&service, "GET", "/fail?code=-12", "", NULL);
    raw_answer_fini(&answer);
    /* The client may have an answer before its request is counted. */
    int64_t end = trk_now_ns() + RAW_DEADLINE_MS * TRK_NS_PER_MS;
    while (metric("commons_request_duration_count") < 5 && trk_now_ns() < end) {
        trk_sleep_ms(1);
    }
    ck_assert_double_eq(metric("commons_requests_started_total"), 5);
    ck_assert_double_eq(metric("commons_requests_done_total"), 5);
    ck_assert_double_eq(metric("commons_request_duration_count"), 5);
    ck_assert_double_eq(metric("commons_internal_server_errors_total"), 1);
    answer = ask(&service, "GET", "/metrics", "", NULL);
    ck_assert_str_eq(raw_header(&answer, "Content-Type"),
                     "text/plain; version=0.0.4; charset=utf-8");
    ck_assert(strstr(answer.body, "\ncommons_requests_started_total 6\n") != NULL);
    raw_answer_fini(&answer);
}
END_TEST

/* The time limit is for clients: a handler may think longer. */
START_TEST(test_long_handler)
{
    struct service slow = {0};
    struct trk_http_options options = service_options(&slow);
    options.timeout_s = 1;
    service_start(&slow, &options);
    int fd = raw_dial(slow.port);
    static const char text[] = "GET /hold HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    ck_assert(raw_send(fd, text, strlen(text)));
    struct raw_answer answer = raw_read(fd, 3500); /* three times the limit */
    ck_assert_msg(!answer.is_closed && answer.len == 0, "%s", answer.bytes);
    raw_answer_fini(&answer);
    atomic_store(&slow.release, true);
    answer = raw_read(fd, RAW_DEADLINE_MS);
    ck_assert_msg(answer.status == 200, "%s", answer.bytes);
    ck_assert_str_eq(answer.body, "released");
    raw_answer_fini(&answer);
    (void)close(fd);
    service_stop(&slow);
}
END_TEST

static void wait_holding(const struct service *s)
{
    int64_t end = trk_now_ns() + RAW_DEADLINE_MS * TRK_NS_PER_MS;
    while (!atomic_load(&s->is_holding) && trk_now_ns() < end) {
        trk_sleep_ms(2);
    }
    ck_assert(atomic_load(&s->is_holding));
}

START_TEST(test_handler_sees_disconnect)
{
    int fd = raw_dial(service.port);
    static const char text[] = "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n";
    ck_assert(raw_send(fd, text, strlen(text)));
    wait_holding(&service);
    (void)close(fd);
    int64_t end = trk_now_ns() + RAW_DEADLINE_MS * TRK_NS_PER_MS;
    while (metric("commons_requests_done_total") < 1 && trk_now_ns() < end) {
        trk_sleep_ms(2);
    }
    ck_assert_double_eq(metric("commons_requests_done_total"), 1);
}
END_TEST

static void *stop_service(void *arg)
{
    service_stop(arg);
    return NULL;
}

/* Stop lets a request that is under way finish, and takes no further one. */
START_TEST(test_graceful_stop)
{
    struct service other = {0};
    service_start(&other, NULL);
    int fd = raw_dial(other.port);
    int idle = raw_dial(other.port);
    static const char text[] = "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n";
    ck_assert(raw_send(fd, text, strlen(text)));
    wait_holding(&other);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, stop_service, &other), 0);
    int64_t end = trk_now_ns() + RAW_DEADLINE_MS * TRK_NS_PER_MS;
    while (!trk_http_server_is_stopping(other.server) && trk_now_ns() < end) {
        trk_sleep_ms(1);
    }
    atomic_store(&other.release, true);
    struct raw_answer answer = raw_read(fd, RAW_DEADLINE_MS);
    ck_assert_int_eq(answer.status, 200);
    ck_assert_str_eq(raw_header(&answer, "Connection"), "close");
    ck_assert_str_eq(answer.body, "released");
    raw_answer_fini(&answer);
    (void)pthread_join(thread, NULL);
    answer = raw_read(idle, RAW_DEADLINE_MS);
    ck_assert(answer.is_closed);
    raw_answer_fini(&answer);
    (void)close(idle);
    (void)close(fd);
}
END_TEST

/* A handler that only ends when its client goes is woken up when the grace is over. */
START_TEST(test_stop_past_grace)
{
    struct service other = {0};
    service_start(&other, NULL);
    int fd = raw_dial(other.port);
    static const char text[] = "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n";
    ck_assert(raw_send(fd, text, strlen(text)));
    wait_holding(&other);
    int64_t begun = trk_now_ns();
    ck_assert(trk_http_server_stop(other.server, 100));
    ck_assert_int_lt(trk_now_ns() - begun, 5 * TRK_NS_PER_S);
    trk_metrics_free(other.metrics);
    (void)close(fd);
}
END_TEST

/* One that looks at nothing is left behind, and stop says so. */
START_TEST(test_stop_leaves_behind)
{
    struct service other = {0};
    service_start(&other, NULL);
    int fd = raw_dial(other.port);
    static const char text[] = "GET /hold?deaf=true HTTP/1.1\r\nHost: x\r\n\r\n";
    ck_assert(raw_send(fd, text, strlen(text)));
    wait_holding(&other);
    ck_assert(!trk_http_server_stop(other.server, 10));
    atomic_store(&other.release, true); /* and what it uses is still there */
    ck_assert(trk_http_server_stop(other.server, 5000));
    trk_metrics_free(other.metrics);
    (void)close(fd);
}
END_TEST

START_TEST(test_port_taken)
{
    struct trk_http_options options = service_options(&service);
    options.port = service.port;
    struct trk_http_server *second = NULL;
    struct trk_err err = {0};
    ck_assert_int_eq(trk_http_server_start(&options, &second, &err), TRK_CONFLICT);
    trk_autofree char *text = trk_xasprintf("port %d on 127.0.0.1 is already in use", service.port);
    ck_assert_msg(strstr(err.text, text) != NULL, "%s", err.text);
    options.addr = "192.0.2.1";
    ck_assert_int_eq(trk_http_server_start(&options, &second, &err), TRK_INVALID);
    options.addr = "nonsense";
    ck_assert_int_eq(trk_http_server_start(&options, &second, &err), TRK_INVALID);
    ck_assert_ptr_null(second);
}
END_TEST

START_TEST(test_ipv6)
{
    struct service other = {0};
    struct trk_http_options options = service_options(&other);
    struct trk_http_server *server = NULL;
    struct trk_err err = {0};
    options.addr = "::1";
    int rc = trk_http_server_start(&options, &server, &err);
    if (rc < 0) { /* a machine without IPv6 */
        ck_assert_msg(rc == TRK_INVALID || rc == TRK_INTERNAL, "%s", err.text);
        return;
    }
    ck_assert_int_gt(trk_http_server_port(server), 0);
    trk_http_server_stop(server, 1000);
}
END_TEST

/* A request past the limit waits until one is over. */
START_TEST(test_request_limit)
{
    static const char hold[] = "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n";
    static const char live[] = "GET /live HTTP/1.1\r\nHost: x\r\n\r\n";
    struct service other = {0};
    struct trk_http_options options = service_options(&other);
    options.request_max = 2;
    service_start(&other, &options);
    int holding[2] = {raw_dial(other.port), raw_dial(other.port)};
    for (int i = 0; i < 2; i++) {
        ck_assert(raw_send(holding[i], hold, strlen(hold)));
    }
    int64_t end = trk_now_ns() + RAW_DEADLINE_MS * TRK_NS_PER_MS;
    while (atomic_load(&other.calls) < 2 && trk_now_ns() < end) {
        trk_sleep_ms(1);
    }
    int fd = raw_dial(other.port);
    ck_assert(raw_send(fd, live, strlen(live)));
    struct raw_answer answer = raw_read(fd, 100);
    ck_assert_int_eq(answer.status, 0);
    raw_answer_fini(&answer);
    (void)close(holding[0]); /* its handler sees it */
    answer = raw_read_one(fd);
    ck_assert_int_eq(answer.status, 200);
    raw_answer_fini(&answer);
    (void)close(fd);
    (void)close(holding[1]);
    service_stop(&other);
}
END_TEST

START_TEST(test_tracing_header)
{
    struct service other = {0};
    struct trk_http_options options = service_options(&other);
    options.tracing_header = "X-Trace";
    service_start(&other, &options);
    struct raw_answer answer = ask(&other, "GET", "/live", "X-Trace: abc\r\n", NULL);
    ck_assert_str_eq(raw_header(&answer, "X-Trace"), "abc");
    ck_assert_str_eq(raw_header(&answer, "X-Request-Tracing-Id"), "");
    raw_answer_fini(&answer);
    service_stop(&other);
}
END_TEST

static int feed_sse(void *ctx, int status, const char *bytes, size_t len, struct trk_err *err)
{
    (void)status;
    return trk_sse_feed(ctx, bytes, len, err);
}
static int count_event(void *ctx, const char *event, const char *id, const char *data,
                       struct trk_err *err)
{
    (void)event;
    (void)id;
    (void)data;
    (void)err;
    (*(int *)ctx)++;
    return 0;
}

/* Our own client against our own server. */
START_TEST(test_by_client)
{
    struct trk_http_client *client = trk_http_client_new();
    struct trk_http_answer answer = {0};
    struct trk_err err = {0};
    trk_autofree char *echo = trk_xasprintf("http://127.0.0.1:%d/api/v1/echo", service.port);
    trk_autofree char *stream = trk_xasprintf("http://127.0.0.1:%d/stream", service.port);
    json_auto_t *body = json_pack("{s:i}", "a", 40);
    struct trk_http_call call = {.method = "POST", .url = echo, .json = body};
    ck_assert_msg(trk_http_call(client, &call, &answer, &err) == 0, "%s", err.text);
    ck_assert_int_eq(answer.status, 200);
    ck_assert_str_eq(answer.body, "{\"a\":40}");
    trk_http_answer_fini(&answer);
    (void)json_object_set_new(body, "b", json_true());
    ck_assert_int_eq(trk_http_call(client, &call, &answer, &err), 0);
    ck_assert_int_eq(trk_http_answer_err(&answer, &err), TRK_SCHEMA);
    ck_assert_msg(strstr(err.text, "body.b") != NULL, "%s", err.text);
    trk_http_answer_fini(&answer);
    size_t len = 20 << 20; /* libcurl waits for the 100 and gets the 413 */
    trk_autofree char *large = trk_xcalloc(1, len);
    call = (struct trk_http_call){.method = "POST", .url = echo, .body = large, .body_len = len};
    ck_assert_msg(trk_http_call(client, &call, &answer, &err) == 0, "%s", err.text);
    ck_assert_int_eq(trk_http_answer_err(&answer, &err), TRK_TOO_LARGE);
    trk_http_answer_fini(&answer);
    int events = 0;
    struct trk_sse *sse = trk_sse_new(count_event, &events);
    call = (struct trk_http_call){.url = stream, .on_data = feed_sse, .ctx = sse, .timeout_ms = -1};
    ck_assert_msg(trk_http_call(client, &call, &answer, &err) == 0, "%s", err.text);
    ck_assert_int_eq(events, 3);
    trk_http_answer_fini(&answer);
    trk_sse_free(sse);
    trk_http_client_free(client);
}
END_TEST

static json_t *own_error(struct trk_request *req, int status, const struct trk_err *err,
                         json_t *body)
{
    (void)req;
    json_decref(body);
    return json_pack("{s:[{s:i, s:s}]}", "errors", "code", status, "message", err->text);
}
START_TEST(test_error_reply)
{
    struct service other = {0};
    struct trk_http_options options = service_options(&other);
    options.error_reply = own_error;
    service_start(&other, &options);
    struct raw_answer answer = ask(&other, "DELETE", "/api/v1/hello/x", "", NULL);
    ck_assert_str_eq(answer.body, "{\"errors\":[{\"code\":401,\"message\":\"no token\"}]}");
    raw_answer_fini(&answer);
    service_stop(&other);
}
END_TEST

/* One line a request, the quiet ones left out, user bytes escaped. */
START_TEST(test_access_log)
{
    trk_autofree char *path = trk_xasprintf("%s/access.log", getenv("TEST_TMP"));
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    trk_log_init(&(struct trk_log_options){.level = TRK_LOG_INFO, .fd = fd});
    struct raw_answer answer = ask(&service, "GET", "/live", "", NULL);
    raw_answer_fini(&answer);
    answer = ask(&service, "GET", "/api/v1/hello/x%0Ay?text=secret",
                 "X-Request-Tracing-Id: trace-2\r\n", NULL);
    raw_answer_fini(&answer);
    teardown(); /* all lines are written */
    char text[4096] = "";
    ck_assert_int_gt(pread(fd, text, sizeof(text) - 1, 0), 0);
    ck_assert_msg(strstr(text, "/live") == NULL && strstr(text, "secret") == NULL, "%s", text);
    ck_assert_msg(strstr(text, "path=/api/v1/hello/x\\ny, status=200") != NULL, "%s", text);
    ck_assert_msg(strstr(text, "tracing_id=trace-2") != NULL, "%s", text);
    ck_assert_ptr_eq(strchr(text, '\n'), text + strlen(text) - 1);
    (void)close(fd);
    setup();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http_server");
    TCase *tcase = tcase_create("server");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_get);
    tcase_add_test(tcase, test_defaults);
    tcase_add_test(tcase, test_head_request);
    tcase_add_test(tcase, test_mounts);
    tcase_add_test(tcase, test_no_route);
    tcase_add_test(tcase, test_echo);
    tcase_add_test(tcase, test_chunked);
    tcase_add_test(tcase, test_schema_detail);
    tcase_add_test(tcase, test_authorize);
    tcase_add_test(tcase, test_authorize_before_body);
    tcase_add_test(tcase, test_connection_survives_rejection);
    tcase_add_test(tcase, test_expect_continue);
    tcase_add_test(tcase, test_pipelined);
    tcase_add_test(tcase, test_http_1_0);
    tcase_add_test(tcase, test_raw_body);
    tcase_add_test(tcase, test_upload);
    tcase_add_test(tcase, test_upload_refused);
    tcase_add_test(tcase, test_answer_that_is_no_json);
    tcase_add_test(tcase, test_server_errors);
    tcase_add_test(tcase, test_tracing_id);
    tcase_add_test(tcase, test_alias);
    tcase_add_test(tcase, test_file);
    tcase_add_test(tcase, test_stream);
    tcase_add_test(tcase, test_stream_left);
    tcase_add_test(tcase, test_list);
    tcase_add_test(tcase, test_request_metrics);
    tcase_add_test(tcase, test_long_handler);
    tcase_add_test(tcase, test_handler_sees_disconnect);
    tcase_add_test(tcase, test_graceful_stop);
    tcase_add_test(tcase, test_stop_past_grace);
    tcase_add_test(tcase, test_stop_leaves_behind);
    tcase_add_test(tcase, test_port_taken);
    tcase_add_test(tcase, test_ipv6);
    tcase_add_test(tcase, test_request_limit);
    tcase_add_test(tcase, test_tracing_header);
    tcase_add_test(tcase, test_by_client);
    tcase_add_test(tcase, test_error_reply);
    tcase_add_test(tcase, test_access_log);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? 1 : 0;
}
