#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "pub/flow.h"
#include "pub/worker.h"

static char memory[PUB_BUFFER_SIZE];

/* Feeds `text` step bytes at a time behind a 4-byte head; what may be sent goes to out. Answers -1
 * on a fault; *ret_rest is what is left behind the body. */
static int run(const char *text, size_t step, enum trk_h1_body body, uint64_t length, bool dechunk,
               char *out, size_t *ret_len, char *ret_rest)
{
    struct pub_flow f = {.bytes = memory};
    memcpy(memory, "HEAD", 4);
    f.len = 4;
    pub_flow_begin(&f, 4, 4, body, length);
    f.dechunk = dechunk;
    *ret_len = 0;
    for (size_t at = 0, len = strlen(text); at < len && !f.is_done;) {
        size_t room = pub_flow_room(&f);
        size_t piece = len - at < step ? len - at : step;
        ck_assert_uint_ge(room, piece);
        memcpy(f.bytes + f.len, text + at, piece);
        f.len += piece;
        at += piece;
        if (pub_flow_check(&f) < 0) {
            return -1;
        }
        memcpy(out + *ret_len, f.bytes + f.sent, pub_flow_pending(&f));
        *ret_len += pub_flow_pending(&f);
        f.sent = f.checked;
        ck_assert_mem_eq(memory, "HEAD", 4);
        if (f.is_done) {
            memcpy(ret_rest, f.bytes + f.checked, f.len - f.checked);
            memcpy(ret_rest + f.len - f.checked, text + at, len - at + 1);
            return 1;
        }
    }
    return f.is_done;
}

static const struct {
    const char *text;
    enum trk_h1_body body;
    uint64_t length;
    bool dechunk;
    int result;
    const char *sent, *rest;
} cases[] = {
    {"hello", TRK_H1_LENGTH, 5, false, 1, "hello", ""},
    {"helloGET /", TRK_H1_LENGTH, 5, false, 1, "hello", "GET /"},
    {"hel", TRK_H1_LENGTH, 5, false, 0, "hel", ""},
    {"anything", TRK_H1_UNTIL_CLOSE, 0, false, 0, "anything", ""},
    {"5\r\nhello\r\n0\r\n\r\nGET /", TRK_H1_CHUNKED, 0, false, 1, "5\r\nhello\r\n0\r\n\r\n",
     "GET /"},
    {"5;x=y\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\nGET /", TRK_H1_CHUNKED, 0, false, 1,
     "5\r\nhello\r\n0\r\n\r\n", "GET /"},
    {"5;x\r\nhello\r\n2;\r\nab\r\n0;last=1;y\r\n\r\nGET /", TRK_H1_CHUNKED, 0, false, 1,
     "5\r\nhello\r\n2\r\nab\r\n0\r\n\r\n", "GET /"},
    {"5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\nGET /", TRK_H1_CHUNKED, 0, true, 1, "helloabc",
     "GET /"},
    {"5\r\nhelloX", TRK_H1_CHUNKED, 0, false, -1, "", ""},
};

START_TEST(body_is_cut_where_it_ends)
{
    for (size_t step = 1; step <= strlen(cases[_i].text); step++) {
        char out[256], rest[256] = "";
        size_t len;
        int n = run(cases[_i].text, step, cases[_i].body, cases[_i].length, cases[_i].dechunk, out,
                    &len, rest);
        ck_assert_msg(n == cases[_i].result, "case %d step %zu: %d", _i, step, n);
        if (n >= 0) {
            ck_assert_uint_eq(len, strlen(cases[_i].sent));
            ck_assert_mem_eq(out, cases[_i].sent, len);
            ck_assert_str_eq(rest, cases[_i].rest);
        }
    }
}
END_TEST

START_TEST(room_is_bounded_and_comes_back)
{
    struct pub_flow f = {.bytes = memory, .len = 100};
    pub_flow_begin(&f, 100, 100, TRK_H1_UNTIL_CLOSE, 0);
    size_t all = pub_flow_room(&f);
    ck_assert_uint_lt(all, PUB_BUFFER_SIZE);
    ck_assert(f.is_whole);
    f.len += all;
    ck_assert_int_eq(pub_flow_check(&f), 0);
    ck_assert_uint_eq(pub_flow_room(&f), 0);
    f.sent += 5000;
    ck_assert_uint_eq(pub_flow_room(&f), 5000);
    ck_assert(!f.is_whole);
    f.sent = f.checked;
    ck_assert_uint_eq(pub_flow_room(&f), all);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("flow");
    TCase *tc = tcase_create("flow");
    tcase_add_loop_test(tc, body_is_cut_where_it_ends, 0, TRK_COUNT(cases));
    tcase_add_test(tc, room_is_bounded_and_comes_back);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
