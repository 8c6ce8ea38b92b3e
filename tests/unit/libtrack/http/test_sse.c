#include <check.h>
#include <string.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/mem.h"
#include "libtrack/http/http_client.h"

/* Events as "event|id|data;" one after the other. */
static struct trk_buf seen;

static int on_event(void *ctx, const char *event, const char *id, const char *data,
                    struct trk_err *err)
{
    (void)ctx;
    if (strcmp(data, "stop") == 0) {
        return trk_err_set(err, TRK_CANCELLED, "enough");
    }
    return trk_buf_addf(&seen, "%s|%s|%s;", event, id, data);
}

static const struct {
    const char *name, *bytes, *events;
} cases[] = {
    {"one", "data: x\n\n", "message||x;"},
    {"no space after the colon", "data:x\n\n", "message||x;"},
    {"only one space goes", "data:  x \n\n", "message|| x ;"},
    {"lines are joined", "data: a\ndata: b\ndata:\n\n", "message||a\nb\n;"},
    {"name", "event: log\ndata: x\n\ndata: y\n\n", "log||x;message||y;"},
    {"id stays", "id: 7\ndata: x\n\ndata: y\n\n", "message|7|x;message|7|y;"},
    {"id is cleared", "id: 7\ndata: x\n\nid\ndata: y\n\n", "message|7|x;message||y;"},
    {"CRLF", "event: e\r\ndata: x\r\n\r\n", "e||x;"},
    {"CR", "event: e\rdata: x\r\r", "e||x;"},
    {"mixed ends", "data: a\r\ndata: b\rdata: c\n\r\n", "message||a\nb\nc;"},
    {"comments", ": hello\n:\ndata: x\n: more\n\n", "message||x;"},
    {"no data, no event", "event: e\nid: 3\n\ndata: x\n\n", "message|3|x;"},
    {"empty data", "data\n\n", "message||;"},
    {"field without colon", "data\ndata\n\n", "message||\n;"},
    {"unknown fields", "retry: 100\nfoo: bar\nDATA: no\n data: no\ndata: x\n\n", "message||x;"},
    {"byte order mark",
     "\xEF\xBB\xBF"
     "data: x\n\n",
     "message||x;"},
    {"mark only at the beginning",
     "data: x\n\n\xEF\xBB\xBF"
     "data: y\n\n",
     "message||x;"},
    {"unfinished", "data: x\n\ndata: y\n", "message||x;"},
    {"only ends", "\n\n\r\r\r\n", ""},
    {"colon within", "data: a: b\n\n", "message||a: b;"},
    {"nothing", "", ""},
};

static void feed(const char *bytes, size_t len, size_t piece)
{
    struct trk_sse *sse = trk_sse_new(on_event, NULL);
    struct trk_err err = {0};
    trk_buf_reset(&seen);
    for (size_t at = 0; at < len; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        ck_assert_int_eq(trk_sse_feed(sse, bytes + at, n, &err), 0);
    }
    trk_sse_free(sse);
}

/* However the bytes are cut, the events are the same. */
START_TEST(test_events)
{
    trk_buf_init(&seen, 1 << 20);
    for (size_t piece = 1; piece < 8; piece++) {
        feed(cases[_i].bytes, strlen(cases[_i].bytes), piece);
        ck_assert_msg(strcmp(seen.data, cases[_i].events) == 0, "%s: %s", cases[_i].name,
                      seen.data);
    }
    trk_buf_fini(&seen);
}
END_TEST

START_TEST(test_nul_in_id)
{
    static const char bytes[] = "id: 1\ndata: x\n\nid: 2\0\ndata: y\n\n";
    trk_buf_init(&seen, 1 << 20);
    feed(bytes, sizeof(bytes) - 1, 100);
    ck_assert_str_eq(seen.data, "message|1|x;message|1|y;");
    trk_buf_fini(&seen);
}
END_TEST

START_TEST(test_stop)
{
    struct trk_sse *sse = trk_sse_new(on_event, NULL);
    struct trk_err err = {0};
    trk_buf_init(&seen, 1 << 20);
    static const char bytes[] = "data: a\n\ndata: stop\n\ndata: b\n\n";
    ck_assert_int_eq(trk_sse_feed(sse, bytes, strlen(bytes), &err), TRK_CANCELLED);
    ck_assert_str_eq(err.text, "enough");
    ck_assert_str_eq(seen.data, "message||a;");
    ck_assert_int_lt(trk_sse_feed(sse, "data: c\n\n", 9, &err), 0); /* it stays stopped */
    ck_assert_str_eq(seen.data, "message||a;");
    trk_sse_free(sse);
    trk_buf_fini(&seen);
}
END_TEST

/* A peer that never ends a line, or whose event's name never ends. */
START_TEST(test_line_cap)
{
    struct trk_sse *sse = trk_sse_new(on_event, NULL);
    struct trk_err err = {0};
    char block[65536];
    memset(block, 'x', sizeof(block));
    int rc = 0;
    for (int i = 0; i < 1000 && rc == 0; i++) {
        rc = trk_sse_feed(sse, block, sizeof(block), &err);
    }
    ck_assert_int_eq(rc, TRK_TOO_LARGE);
    trk_sse_free(sse);
    sse = trk_sse_new(on_event, NULL);
    memcpy(block, "event: ", 7);
    block[sizeof(block) - 1] = '\n';
    ck_assert_int_eq(trk_sse_feed(sse, block, sizeof(block), &err), TRK_TOO_LARGE);
    trk_sse_free(sse);
}
END_TEST

/* Or an event of ever more lines. */
START_TEST(test_event_cap)
{
    struct trk_sse *sse = trk_sse_new(on_event, NULL);
    struct trk_err err = {0};
    char line[1024] = "data: ";
    memset(line + 6, 'x', sizeof(line) - 7);
    line[sizeof(line) - 1] = '\n';
    int rc = 0;
    for (int i = 0; i < 100000 && rc == 0; i++) {
        rc = trk_sse_feed(sse, line, sizeof(line), &err);
    }
    ck_assert_int_eq(rc, TRK_TOO_LARGE);
    trk_sse_free(sse);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sse");
    TCase *tcase = tcase_create("sse");
    tcase_add_loop_test(tcase, test_events, 0, (int)TRK_COUNT(cases));
    tcase_add_test(tcase, test_nul_in_id);
    tcase_add_test(tcase, test_stop);
    tcase_add_test(tcase, test_line_cap);
    tcase_add_test(tcase, test_event_cap);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? 1 : 0;
}
