/* A long string is taken out of JSON that comes in pieces of any size. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json_split.h"

static struct trk_buf text, value;
static struct trk_err err;

static int add_text(void *ctx, const char *bytes, size_t len, struct trk_err *e)
{
    (void)ctx;
    (void)e;
    return trk_buf_add(&text, bytes, len);
}

static int add_value(void *ctx, const char *bytes, size_t len, struct trk_err *e)
{
    (void)ctx;
    (void)e;
    return trk_buf_add(&value, bytes, len);
}

static int split(const char *json, size_t piece, bool *ret_is_found)
{
    struct trk_json_split split = {.member = "file", .on_text = add_text, .on_value = add_value};
    int rc = 0;
    trk_buf_reset(&text);
    trk_buf_reset(&value);
    for (size_t at = 0, len = strlen(json); rc == 0 && at < len; at += piece) {
        rc = trk_json_split_feed(&split, json + at, len - at < piece ? len - at : piece, &err);
    }
    *ret_is_found = split.is_found;
    return rc;
}

static void setup(void)
{
    trk_buf_init(&text, 1 << 16);
    trk_buf_init(&value, 1 << 16);
}

static void teardown(void)
{
    trk_buf_fini(&text);
    trk_buf_fini(&value);
}

static const struct {
    const char *json, *text, *value; /* value NULL: nothing is taken */
} table[] = {
    {"{\"file\":\"QUJD\"}", "{\"file\":\"\"}", "QUJD"},
    {"{\"file\" : \"\"}", "{\"file\" : \"\"}", ""},
    {" {\"a\":[1,{\"file\":\"x\"}],\"file\"\n:\t\"yy\",\"b\":\"file\"} ",
     " {\"a\":[1,{\"file\":\"x\"}],\"file\"\n:\t\"\",\"b\":\"file\"} ", "yy"},
    {"{\"file\":\"a\\/b\\u002Bc\\n\\\"\\\\\"}", "{\"file\":\"\"}", "a/b+c\n\"\\"},
    {"{\"a\":\"\\\"file\\\":\\\"x\\\"\",\"c\":\"\\\\\",\"file\":\"z\"}",
     "{\"a\":\"\\\"file\\\":\\\"x\\\"\",\"c\":\"\\\\\",\"file\":\"\"}", "z"},
    {"{\"file\":null}", "{\"file\":null}", NULL},
    {"{\"file\":[\"x\"],\"a\":\"b\"}", "{\"file\":[\"x\"],\"a\":\"b\"}", NULL},
    {"{\"file\":{\"file\":\"x\"}}", "{\"file\":{\"file\":\"x\"}}", NULL},
    {"{\"files\":\"x\",\"fil\":\"x\",\"\":\"x\"}", "{\"files\":\"x\",\"fil\":\"x\",\"\":\"x\"}",
     NULL},
    {"{\"a\":\"file\",\"b\":\"x\"}", "{\"a\":\"file\",\"b\":\"x\"}", NULL},
    {"{\"f\\u0069le\":\"x\"}", "{\"f\\u0069le\":\"x\"}", NULL},
    {"[\"file\",\"x\"]", "[\"file\",\"x\"]", NULL},
    {"[{\"file\":\"x\"}]", "[{\"file\":\"x\"}]", NULL},
    {"{\"file\" \"x\"}", "{\"file\" \"x\"}", NULL},
    {"{\"file\":1 \"x\"}", "{\"file\":1 \"x\"}", NULL},
    {"{\"file\":\"x", "{\"file\":\"", "x"},
    {"}]{\"file\":\"x\"}", "}]{\"file\":\"x\"}", NULL},
    {"", "", NULL},
};
START_TEST(the_member_is_taken_out)
{
    for (size_t piece = 1; piece < 24; piece++) {
        bool is_found;
        ck_assert_msg(split(table[_i].json, piece, &is_found) == 0, "%s", err.text);
        ck_assert_str_eq(text.data, table[_i].text);
        ck_assert_str_eq(value.data, table[_i].value != NULL ? table[_i].value : "");
        ck_assert_int_eq(is_found, table[_i].value != NULL);
    }
}
END_TEST

START_TEST(what_it_cannot_take_is_refused)
{
    static const char *const bad[] = {"{\"file\":\"a\",\"file\":\"b\"}", "{\"file\":\"\\x\"}",
                                      "{\"file\":\"\\u00e9\"}", "{\"file\":\"\\u00\"}\""};
    bool is_found;
    ck_assert_int_eq(split(bad[_i], 1, &is_found), TRK_INVALID);
    ck_assert_int_eq(split(bad[_i], 100, &is_found), TRK_INVALID);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json_split");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, the_member_is_taken_out, 0, TRK_COUNT(table));
    tcase_add_loop_test(tc, what_it_cannot_take_is_refused, 0, 4);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
