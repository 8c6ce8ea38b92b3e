/* Small readers of outside bytes: token, URLs, JSON text. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "pub/link.h"
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
    struct pub_token_found token;
    int n = pub_token_find(&r, scratch, &token);
    if (tokens[_i].token == NULL) {
        ck_assert_int_eq(n, -1);
        return;
    }
    ck_assert_int_eq(n, 0);
    ck_assert_uint_eq(token.text.len, strlen(tokens[_i].token));
    ck_assert_mem_eq(token.text.at, tokens[_i].token, token.text.len);
}
END_TEST

static const struct {
    const char *headers;
    bool is_cross_site;
} origins[] = {
    {"", false},
    {"Sec-Fetch-Site: same-origin\r\nOrigin: http://evil\r\n", false},
    {"Sec-Fetch-Site: none\r\n", false},
    {"Sec-Fetch-Site: same-site\r\n", true},
    {"Sec-Fetch-Site: cross-site\r\nOrigin: http://a:80\r\n", true},
    {"Origin: http://a:80\r\n", false},
    {"Origin: https://A:80\r\n", false},
    {"Origin: http://a\r\n", true},
    {"Origin: http://a:80.evil\r\n", true},
    {"Origin: null\r\n", true},
    {"Origin: \r\n", true},
};

START_TEST(origin_is_told)
{
    trk_autofree char *head = trk_xasprintf("POST / HTTP/1.1\r\nHost: a:80\r\n%s\r\n",
                                            origins[_i].headers);
    struct trk_h1_request r;
    ck_assert_int_gt(trk_h1_parse_request(&r, head, strlen(head)), 0);
    ck_assert(pub_token_is_cross_site(&r) == origins[_i].is_cross_site);
}
END_TEST

static const struct {
    const char *url, *host, *port, *path, *header; /* host NULL: refused */
} urls[] = {
    {"http://127.0.0.1:7202/lifecycle", "127.0.0.1", "7202", "/lifecycle", "127.0.0.1:7202"},
    {"http://lifecycle", "lifecycle", "80", "", "lifecycle:80"},
    {"http://[::1]:7202/a/b//", "::1", "7202", "/a/b", "[::1]:7202"},
    {"http://[::1]/a", "::1", "80", "/a", "[::1]:80"},
    {"https://lifecycle", NULL, NULL, NULL, NULL},
    {"lifecycle:7202", NULL, NULL, NULL, NULL},
    {"http:///x", NULL, NULL, NULL, NULL},
    {"http://user@host/x", NULL, NULL, NULL, NULL},
    {"http://host/x y", NULL, NULL, NULL, NULL},
    {"http://host/x?y", NULL, NULL, NULL, NULL},
    {"http://host:x/", NULL, NULL, NULL, NULL},
    {"http://host:123456/", NULL, NULL, NULL, NULL},
    {"http://[::1", NULL, NULL, NULL, NULL},
    {"http://[::1]x", NULL, NULL, NULL, NULL},
    {"http://host:", NULL, NULL, NULL, NULL},
    {"", NULL, NULL, NULL, NULL},
};

START_TEST(url_is_taken_apart)
{
    struct trk_err err = {0};
    struct pub_link link;
    int n = pub_link_init(&link, urls[_i].url, "token", &err);
    if (urls[_i].host == NULL) {
        ck_assert_int_eq(n, TRK_INVALID);
        return;
    }
    ck_assert_int_eq(n, 0);
    ck_assert_str_eq(link.host, urls[_i].host);
    ck_assert_str_eq(link.port, urls[_i].port);
    ck_assert_str_eq(link.path, urls[_i].path);
    ck_assert_str_eq(link.header, urls[_i].header);
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
    tcase_add_loop_test(tc, origin_is_told, 0, TRK_COUNT(origins));
    tcase_add_loop_test(tc, url_is_taken_apart, 0, TRK_COUNT(urls));
    tcase_add_test(tc, text_is_escaped_and_bounded);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
