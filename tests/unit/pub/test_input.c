/* Small readers of outside bytes: token, server-sent events, lifecycle's chunks, URLs, JSON text.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "pub/answer.h"
#include "pub/config.h"
#include "pub/sse.h"
#include "pub/text.h"
#include "pub/token.h"

static const struct {
    const char *headers, *token; /* NULL: refused */
} tokens[] = {
    {"", ""},
    {"X-Racetrack-Auth: a\r\nX-Racetrack-Esc-Auth: b\r\nX-Racetrack-User-Auth: c\r\n", "a"},
    {"X-Racetrack-User-Auth: c\r\nX-Racetrack-Esc-Auth: b\r\n", "b"},
    {"X-Racetrack-Auth:\r\nX-Racetrack-User-Auth: c\r\n", "c"},
    {"Cookie: X-Racetrack-Auth=tok%2Fen\r\nX-Racetrack-Esc-Auth: b\r\n", "tok/en"},
    {"Cookie: x=1;X-Racetrack-Auth=t ; y=2\r\n", "t"},
    {"Cookie: X-Racetrack-Auth=\"t\"\r\n", "t"},
    {"Cookie: a=b\r\nCookie: X-Racetrack-Auth=t\r\n", "t"},
    {"Cookie: XX-Racetrack-Auth=t; X-Racetrack-Authx=t; x-racetrack-auth=t\r\n", ""},
    {"Cookie: X-Racetrack-Auth\r\n", ""},
    {"Cookie: ;;; =;X-Racetrack-Auth=\r\n", ""},
    {"Cookie: X-Racetrack-Auth=t\r\nX-Racetrack-Auth: h\r\n", "h"},
    {"Cookie: X-Racetrack-Auth=a%0d%0ab\r\n", NULL},
    {"Cookie: X-Racetrack-Auth=a%00\r\n", NULL},
    {"Cookie: X-Racetrack-Auth=a%2\r\n", NULL},
    {"X-Racetrack-Auth: a b\r\n", NULL},
    {"X-Racetrack-Auth: \xc3\xa9\r\n", NULL},
};

START_TEST(token_is_found)
{
    trk_autofree char *head = trk_xasprintf("GET / HTTP/1.1\r\nHost: a\r\n%s\r\n",
                                            tokens[_i].headers);
    struct trk_h1_request r;
    ck_assert_int_gt(trk_h1_parse_request(&r, head, strlen(head)), 0);
    char scratch[TRK_H1_TARGET_MAX];
    struct trk_h1_slice token = {NULL, 0};
    int n = pub_token_find(&r, scratch, &token);
    if (tokens[_i].token == NULL) {
        ck_assert_int_eq(n, -1);
        return;
    }
    ck_assert_int_eq(n, 0);
    ck_assert_uint_eq(token.len, strlen(tokens[_i].token));
    ck_assert_mem_eq(token.at, tokens[_i].token, token.len);
}
END_TEST

static void note_event(void *ctx, const char *event, const char *id, const char *data)
{
    (void)trk_buf_addf(ctx, "[%s|%s|%s]", event, id, data);
}

START_TEST(events_are_read_however_they_are_cut)
{
    static const char stream[] = ": heartbeat\n\nid: 7\nevent: job_changed\ndata: {\"a\":1}\n\n"
                                 "data:x\r\ndata: y\r\n\r\nevent: lost\n\nid: 9\rdata\r\r"
                                 "retry: 5\nunknown: z\ndata: last\n\nid: 10\ndata: half\n";
    static const char want[] =
        "[job_changed|7|{\"a\":1}][message|7|x\ny][message|9|][message|9|last]";
    for (size_t step = 1; step < sizeof(stream); step++) {
        struct trk_buf seen;
        struct pub_sse sse;
        trk_buf_init(&seen, 4096);
        pub_sse_init(&sse, note_event, &seen);
        for (size_t at = 0; at < sizeof(stream) - 1; at += step) {
            size_t len = sizeof(stream) - 1 - at;
            ck_assert_int_eq(pub_sse_feed(&sse, stream + at, len < step ? len : step), 0);
        }
        ck_assert_str_eq(seen.data, want);
        ck_assert_str_eq(sse.id, "9"); /* an event that was cut off is asked for again */
        pub_sse_fini(&sse);
        trk_buf_fini(&seen);
    }
}
END_TEST

START_TEST(endless_event_is_a_fault)
{
    struct trk_buf seen;
    struct pub_sse sse;
    trk_buf_init(&seen, 4096);
    pub_sse_init(&sse, note_event, &seen);
    trk_autofree char *bytes = trk_xmalloc(100000);
    memset(bytes, 'x', 100000);
    ck_assert_int_eq(pub_sse_feed(&sse, bytes, 100000), -1);
    pub_sse_fini(&sse);
    trk_buf_fini(&seen);
}
END_TEST

START_TEST(chunked_answer_is_joined_when_whole)
{
    static const char whole[] = "5\r\nhello\r\n6;x\r\n world\r\n0\r\nT: x\r\n\r\n";
    for (size_t len = 0; len < sizeof(whole) - 1; len++) {
        char bytes[sizeof(whole)];
        size_t n = len;
        memcpy(bytes, whole, sizeof(whole));
        ck_assert_int_eq(pub_answer_dechunk(bytes, &n), 0);
        ck_assert_mem_eq(bytes, whole, sizeof(whole));
    }
    char bytes[sizeof(whole)];
    size_t n = sizeof(whole) - 1;
    memcpy(bytes, whole, sizeof(whole));
    ck_assert_int_eq(pub_answer_dechunk(bytes, &n), 1);
    ck_assert_uint_eq(n, 11);
    ck_assert_mem_eq(bytes, "hello world", 11);
    char bad[] = "5\r\nhelloX";
    n = sizeof(bad) - 1;
    ck_assert_int_eq(pub_answer_dechunk(bad, &n), -1);
}
END_TEST

static const struct {
    const char *url, *host, *path; /* NULL: refused */
} urls[] = {
    {"http://127.0.0.1:7202/lifecycle", "127.0.0.1:7202", "/lifecycle"},
    {"http://lifecycle/", "lifecycle:80", ""},
    {"http://[::1]:7202/a/b//", "[::1]:7202", "/a/b"},
    {"http://[::1]/a?x", "[::1]:80", "/a"},
    {"https://lifecycle/", NULL, NULL},
    {"lifecycle:7202", NULL, NULL},
    {"http:///x", NULL, NULL},
    {"http://user@host/x", NULL, NULL},
    {"http://host/x y", NULL, NULL},
    {"", NULL, NULL},
};

START_TEST(url_is_taken_apart)
{
    struct pub_url url;
    struct trk_err err = {0};
    int n = pub_url_parse(&url, urls[_i].url, &err);
    if (urls[_i].host == NULL) {
        ck_assert_int_eq(n, TRK_INVALID);
        return;
    }
    ck_assert_int_eq(n, 0);
    ck_assert_str_eq(url.host, urls[_i].host);
    ck_assert_str_eq(url.path, urls[_i].path);
}
END_TEST

START_TEST(text_is_escaped_and_bounded)
{
    char memory[64];
    struct pub_text t;
    static const char odd[] = "a\"\\\n\xc3\xa9\xff\xc3";
    pub_text_init(&t, memory, sizeof(memory));
    pub_text_json(&t, odd, sizeof(odd) - 1);
    ck_assert(!t.overflow);
    static const char want[] = "\"a\\\"\\\\\\u000a\xc3\xa9\\ufffd\\ufffd\"";
    ck_assert_uint_eq(pub_text_len(&t), sizeof(want) - 1);
    ck_assert_mem_eq(memory, want, sizeof(want) - 1);
    pub_text_init(&t, memory, 4);
    pub_text_json(&t, "hello", 5);
    ck_assert(t.overflow);
    pub_text_init(&t, memory, sizeof(memory));
    pub_text_url(&t, "a/b c%\xc3", 7, true);
    pub_text_u64(&t, UINT64_MAX);
    ck_assert_mem_eq(memory, "a/b%20c%25%c318446744073709551615", 33);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("input");
    TCase *tc = tcase_create("input");
    tcase_add_loop_test(tc, token_is_found, 0, TRK_COUNT(tokens));
    tcase_add_test(tc, events_are_read_however_they_are_cut);
    tcase_add_test(tc, endless_event_is_a_fault);
    tcase_add_test(tc, chunked_answer_is_joined_when_whole);
    tcase_add_loop_test(tc, url_is_taken_apart, 0, TRK_COUNT(urls));
    tcase_add_test(tc, text_is_escaped_and_bounded);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
