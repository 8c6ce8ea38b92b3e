#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

static const struct {
    const char *text, *written;
} good[] = {
    {"{\"b\":1, \"a\" : [true,false,null] }", "{\"b\":1,\"a\":[true,false,null]}"},
    {" \"x\" ", "\"x\""},
    {"0.1", "0.1"},
    {"100.0", "100.0"},
    {"1e300", "1e+300"},
    {"0.30000000000000004", "0.30000000000000004"},
    {"-9223372036854775808", "-9223372036854775808"},
    {"\"\\u00e9\\n\\u0001\\\\\\\"/\\ud83d\\ude00\"",
     "\"\xc3\xa9\\n\\u0001\\\\\\\"/\xf0\x9f\x98\x80\""},
    {"{\"k\\ney\":{}}", "{\"k\\ney\":{}}"},
    {"[]", "[]"},
};
START_TEST(good_json_reads_and_writes)
{
    json_auto_t *value = NULL;
    struct trk_err err = {0};
    ck_assert_msg(trk_json_parse(good[_i].text, strlen(good[_i].text), &value, &err) == 0, "%s",
                  err.text);
    trk_autofree char *text = trk_json_text(value);
    ck_assert_str_eq(text, good[_i].written);
}
END_TEST

static const struct {
    const char *text, *reason;
} bad[] = {
    {"{\"a\":1,\"a\":2}", "duplicate"},
    {"{\"a\":{\"b\":1,\"b\":1}}", "duplicate"},
    {"\"\\u0000\"", "\\u0000"},
    {"{\"a\\u0000\":1}", "\\u0000"},
    {"[1] x", "line 1"},
    {"{} {}", "line 1"},
    {"", "line 1"},
    {"{\"a\":}", "line 1"},
    {"[1,]", "line 1"},
    {"{'a':1}", "line 1"},
    {"[1\n,\n!", "line 3"},
    {"\"\\ud83d\"", "line 1"},
    {"\"\xc3\x28\"", "line 1"},
    {"12345678901234567890", "line 1"},
    {"1e999", "line 1"},
    {"NaN", "line 1"},
    {"01", "line 1"},
    {"\"tab\there\"", "line 1"},
};
START_TEST(bad_json_is_refused_with_its_place)
{
    json_t *value = NULL;
    struct trk_err err = {0};
    ck_assert_int_eq(trk_json_parse(bad[_i].text, strlen(bad[_i].text), &value, &err), TRK_INVALID);
    ck_assert_ptr_null(value);
    ck_assert_msg(strstr(err.text, bad[_i].reason) != NULL, "'%s' does not say '%s'", err.text,
                  bad[_i].reason);
}
END_TEST

START_TEST(raw_nul_is_refused)
{
    json_t *value = NULL;
    ck_assert_int_eq(trk_json_parse("\"a\0b\"", 5, &value, NULL), TRK_INVALID);
    ck_assert_int_eq(trk_json_parse("1\0", 2, &value, NULL), TRK_INVALID);
    ck_assert_int_eq(trk_json_parse("{}\0{}", 5, &value, NULL), TRK_INVALID);
    ck_assert_int_eq(trk_json_parse(NULL, 0, &value, NULL), TRK_INVALID);
}
END_TEST

static int parse_nested(size_t levels, struct trk_err *err)
{
    trk_autofree char *text = trk_xmalloc(2 * levels);
    json_auto_t *value = NULL;
    memset(text, '[', levels);
    memset(text + levels, ']', levels);
    return trk_json_parse(text, 2 * levels, &value, err);
}

START_TEST(depth_is_capped)
{
    struct trk_err err = {0};
    ck_assert_int_eq(parse_nested(TRK_JSON_DEPTH_MAX, &err), 0);
    ck_assert_int_eq(parse_nested(TRK_JSON_DEPTH_MAX + 1, &err), TRK_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "column 65: nested deeper than 64"));
    ck_assert_int_eq(parse_nested(10000000, &err), TRK_INVALID);
}
END_TEST

START_TEST(brackets_in_strings_are_no_depth)
{
    char text[2 * TRK_JSON_DEPTH_MAX + 8] = "\"\\\"";
    json_auto_t *value = NULL;
    for (int i = 0; i < 2 * TRK_JSON_DEPTH_MAX; i++) {
        text[3 + i] = '[';
    }
    (void)memcpy(text + 3 + 2 * TRK_JSON_DEPTH_MAX, "\"", 2);
    ck_assert_int_eq(trk_json_parse(text, strlen(text), &value, NULL), 0);
}
END_TEST

START_TEST(required_members)
{
    json_auto_t *object = json_pack("{s:s, s:i, s:n, s:f}", "s", "text", "i", 7, "n", "r", 1.5);
    struct trk_err err = {0};
    const char *text = NULL;
    int64_t number = 0;
    ck_assert_int_eq(trk_json_string(object, "s", &text, &err), 0);
    ck_assert_str_eq(text, "text");
    ck_assert_int_eq(trk_json_int(object, "i", &number, &err), 0);
    ck_assert_int_eq(number, 7);
    ck_assert_int_eq(trk_json_string(object, "i", &text, &err), TRK_SCHEMA);
    ck_assert_str_eq(err.text, "i: must be a string, is a number");
    ck_assert_int_eq(trk_json_string(object, "none", &text, &err), TRK_SCHEMA);
    ck_assert_str_eq(err.text, "none: is required (a string)");
    ck_assert_int_eq(trk_json_int(object, "r", &number, &err), TRK_SCHEMA);
    ck_assert_int_eq(trk_json_int(object, "n", &number, &err), TRK_SCHEMA);
    ck_assert_int_eq(trk_json_string(NULL, "s", &text, &err), TRK_SCHEMA);
    ck_assert_str_eq(text, "text"); /* untouched on failure */
}
END_TEST

START_TEST(optional_members)
{
    json_auto_t *object = json_pack("{s:s, s:i, s:n, s:b}", "s", "text", "i", 7, "n", "b", 1);
    ck_assert_str_eq(trk_json_string_or(object, "s", "d"), "text");
    ck_assert_str_eq(trk_json_string_or(object, "n", "d"), "d");
    ck_assert_str_eq(trk_json_string_or(object, "i", "d"), "d");
    ck_assert_int_eq(trk_json_int_or(object, "i", 1), 7);
    ck_assert_int_eq(trk_json_int_or(object, "s", 1), 1);
    ck_assert(trk_json_bool_or(object, "b", false));
    ck_assert(trk_json_bool_or(object, "none", true));
    json_auto_t *null = trk_json_string_or_null(NULL);
    ck_assert(json_is_null(null));
}
END_TEST

START_TEST(writing_keeps_the_cap)
{
    struct trk_buf buf;
    json_auto_t *value = json_pack("[s,s]", "twelve bytes", "twelve bytes");
    trk_buf_init(&buf, 20);
    ck_assert_int_eq(trk_json_dump(value, &buf), TRK_TOO_LARGE);
    trk_buf_fini(&buf);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json");
    TCase *tc = tcase_create("json");
    trk_json_init();
    tcase_add_loop_test(tc, good_json_reads_and_writes, 0, TRK_COUNT(good));
    tcase_add_loop_test(tc, bad_json_is_refused_with_its_place, 0, TRK_COUNT(bad));
    tcase_add_test(tc, raw_nul_is_refused);
    tcase_add_test(tc, depth_is_capped);
    tcase_add_test(tc, brackets_in_strings_are_no_depth);
    tcase_add_test(tc, required_members);
    tcase_add_test(tc, optional_members);
    tcase_add_test(tc, writing_keeps_the_cap);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
