#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/data/yaml.h"

static const struct {
    const char *yaml, *json;
} good[] = {
    {"", "null"},
    {"# only a comment\n", "null"},
    {"---\na: b\n...\n", "{\"a\":\"b\"}"},
    {"\xef\xbb\xbf"
     "a: b",
     "{\"a\":\"b\"}"},
    {"a: b\r\nc: d\r\n", "{\"a\":\"b\",\"c\":\"d\"}"},
    {"a: yes\nb: no\nc: on\nd: off\ne: y", /* YAML 1.2: texts */
     "{\"a\":\"yes\",\"b\":\"no\",\"c\":\"on\",\"d\":\"off\",\"e\":\"y\"}"},
    {"a: true\nb: False\nc: TRUE\nd: tRue", "{\"a\":true,\"b\":false,\"c\":true,\"d\":\"tRue\"}"},
    {"a: null\nb: ~\nc:\nd: NULL\ne: nuLL", /* nothing is null */
     "{\"a\":null,\"b\":null,\"c\":null,\"d\":null,\"e\":\"nuLL\"}"},
    {"[1, -2, +3, 007, 0o7, 0x1F, 1_000, 1:30]", "[1,-2,3,7,\"0o7\",\"0x1F\",\"1_000\",\"1:30\"]"},
    {"[1.5, -.5, 3., 1e3, 1.e-2, ., -, +, e3, 1e, 1.2.3, 0.0.1]",
     "[1.5,-0.5,3.0,1000.0,0.01,\".\",\"-\",\"+\",\"e3\",\"1e\",\"1.2.3\",\"0.0.1\"]"},
    {"['1', \"true\", 'it''s', \"a\\tb\\u00e9\"]", "[\"1\",\"true\",\"it's\",\"a\\tb\xc3\xa9\"]"},
    {"a: |\n  x\n   y\nb: >\n  folded\n  text\n", "{\"a\":\"x\\n y\\n\",\"b\":\"folded text\\n\"}"},
    {"- a\n- - b\n  - c: 1\n    d: []\n- {}\n", "[\"a\",[\"b\",{\"c\":1,\"d\":[]}],{}]"},
    {"a: http://x:80/y#z\n", "{\"a\":\"http://x:80/y#z\"}"},
    {"2020-01-31", "\"2020-01-31\""},
    {"\"1\": a", "{\"1\":\"a\"}"},
    {"yes: a", "{\"yes\":\"a\"}"},
    {"a: \"x\\\n  y\"", "{\"a\":\"xy\"}"},
};
START_TEST(good_yaml_is_read)
{
    json_auto_t *value = NULL;
    struct trk_err err = {0};
    ck_assert_msg(trk_yaml_parse(good[_i].yaml, strlen(good[_i].yaml), "f", &value, &err) == 0,
                  "%s", err.text);
    trk_autofree char *text = trk_json_text(value);
    ck_assert_str_eq(text, good[_i].json);
}
END_TEST

static const struct {
    const char *yaml, *place, *advice;
} bad[] = {
    {"a: &x 1\nb: *x", "line 1 column 4", "anchors (&x)"},
    {"a: *x", "line 1 column 4", "aliases (*x)"},
    {"a: &a [b]\nc: &b [*a,*a]", "line 1", "anchors"},
    {"&top a: b", "line 1", "anchors"},
    {"a: !!str 1", "line 1 column 4", "tags"},
    {"a: !local {}", "line 1", "tags"},
    {"!!python/object/apply:os.system [x]", "line 1", "tags"},
    {"a: 1\nb: 2\na: 3", "line 3 column 1", "'a' is there twice"},
    {"x: {a: 1, a: 1}", "line 1 column 11", "twice"},
    {"a: 1\n'a': 2", "line 2", "twice"},
    {"a: 1\n---\nb: 2", "line 2", "second document"},
    {"---\n---\n", "line 2", "second document"},
    {"1: a", "line 1", "in quotes"},
    {"true: a", "line 1", "in quotes"},
    {"null: a", "line 1", "in quotes"},
    {"[a]: b", "line 1", "not a list or a mapping"},
    {"? {a: b}\n: c", "line 1", "not a list or a mapping"},
    {"a: b: c", "line 1", "quotes"},
    {"a:\n\tb: c", "line 2", "not tabs"},
    {"a: @x", "line 1", "quotes"},
    {"a: 'open", "line 1", "quoted scalar"},
    {"[a, b", "line 2", "expected"},
    {"a: b\n c: d", "line 2", "indentation"},
    {"a: \"\\0\"", "line 1", "NUL"},
    {"a: \"\\ud800\"", "line 1", "Unicode"},
    {"a: \x01", "byte", "control"},
    {"a: .inf", "line 1", "not a number that JSON knows"},
    {"a: .nan", "line 1", "not a number"},
    {"a: 1e999", "line 1", "not a number"},
    {"a: 99999999999999999999", "line 1", "too large"},
    {"ok: 1\nb: caf\xe9", "line 2", "UTF-8"},
    {"\xff\xfe"
     "a\0:\0",
     "line 1", "UTF-8"},
    {"{a: b}}", "line 1", "expected"},
};
START_TEST(bad_yaml_is_refused_with_place_and_advice)
{
    json_t *value = NULL;
    struct trk_err err = {0};
    ck_assert_int_eq(trk_yaml_parse(bad[_i].yaml, strlen(bad[_i].yaml), "job.yaml", &value, &err),
                     TRK_INVALID);
    ck_assert_ptr_null(value);
    ck_assert_msg(trk_str_has_prefix(err.text, "job.yaml: "), "%s", err.text);
    ck_assert_msg(strstr(err.text, bad[_i].place) != NULL, "'%s' does not say '%s'", err.text,
                  bad[_i].place);
    ck_assert_msg(strstr(err.text, bad[_i].advice) != NULL, "'%s' does not say '%s'", err.text,
                  bad[_i].advice);
}
END_TEST

/* How deep documents nest: brackets, braces, indentation, dashes. */
static void add_nested(struct trk_buf *buf, int form, int levels)
{
    static const char *const closed[] = {"[", "{a: ", NULL, "- "};
    for (int i = 0; i < levels && buf->len < TRK_YAML_BYTES_MAX - 1000; i++) {
        if (form == 2) {
            (void)trk_buf_addf(buf, "%*sa:\n", i < 700 ? i : 700, "");
        } else {
            (void)trk_buf_adds(buf, closed[form]);
        }
    }
}

START_TEST(deep_nesting_is_refused_at_once)
{
    struct trk_buf buf;
    struct trk_err err = {0};
    json_t *value = NULL;
    trk_buf_init(&buf, 1 << 20);
    add_nested(&buf, _i, 20000);
    clock_t start = clock();
    ck_assert_int_eq(trk_yaml_parse(buf.data, buf.len, "f", &value, &err), TRK_INVALID);
    ck_assert_msg(strstr(err.text, "nested deeper than 32 levels") != NULL, "%s", err.text);
    /* libyaml by itself takes seconds of CPU time for these */
    ck_assert_int_lt(clock() - start, CLOCKS_PER_SEC);
    trk_buf_fini(&buf);
}
END_TEST

START_TEST(allowed_depth_is_read)
{
    char text[2 * TRK_YAML_DEPTH_MAX + 3];
    json_auto_t *value = NULL;
    struct trk_err err = {0};
    memset(text, '[', TRK_YAML_DEPTH_MAX);
    memset(text + TRK_YAML_DEPTH_MAX, ']', TRK_YAML_DEPTH_MAX);
    ck_assert_int_eq(trk_yaml_parse(text, 2 * TRK_YAML_DEPTH_MAX, "f", &value, &err), 0);
    memset(text, '[', TRK_YAML_DEPTH_MAX + 1);
    memset(text + TRK_YAML_DEPTH_MAX + 1, ']', TRK_YAML_DEPTH_MAX + 1);
    json_t *none = NULL;
    ck_assert_int_eq(trk_yaml_parse(text, 2 * TRK_YAML_DEPTH_MAX + 2, "f", &none, &err),
                     TRK_INVALID);
}
END_TEST

START_TEST(size_is_capped)
{
    trk_autofree char *text = trk_xmalloc(TRK_YAML_BYTES_MAX + 1);
    json_auto_t *value = NULL;
    struct trk_err err = {0};
    memset(text, 'a', TRK_YAML_BYTES_MAX + 1);
    ck_assert_int_eq(trk_yaml_parse(text, TRK_YAML_BYTES_MAX, "f", &value, &err), 0);
    ck_assert_uint_eq(json_string_length(value), TRK_YAML_BYTES_MAX);
    json_t *none = NULL;
    ck_assert_int_eq(trk_yaml_parse(text, TRK_YAML_BYTES_MAX + 1, "f", &none, &err), TRK_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "at most 262144"));
}
END_TEST

START_TEST(lines_are_told)
{
    static const char yaml[] = "# comment\na:\n  b: 1\n\n  c: [x,\n    y]\nd:\n- e: 1\n- f\n";
    json_auto_t *value = NULL;
    json_auto_t *lines = NULL;
    ck_assert_int_eq(trk_yaml_parse_lines(yaml, strlen(yaml), "f", &value, &lines, NULL), 0);
    trk_autofree char *text = trk_json_text(lines);
    ck_assert_str_eq(text, "{\"a\":2,\"a.b\":3,\"a.c\":5,\"a.c[0]\":5,\"a.c[1]\":6,\"d\":7,"
                           "\"d[0]\":8,\"d[0].e\":8,\"d[1]\":9}");
}
END_TEST

static const struct {
    const char *json, *yaml;
} dumped[] = {
    {"{\"a\":\"b\",\"c\":{\"d\":1,\"e\":[]},\"f\":{}}", "a: b\nc:\n  d: 1\n  e: []\nf: {}\n"},
    {"{\"l\":[\"x\",{\"a\":1,\"b\":[2]},[3,4]]}",
     "l:\n  - x\n  - a: 1\n    b:\n      - 2\n  - - 3\n    - 4\n"},
    {"[true,null,1.5]", "- true\n- null\n- 1.5\n"},
    {"\"text\"", "text\n"},
    {"[\"true\",\"1\",\"\",\" a\",\"yes\",\"null\",\"~\",\"0x1\",\"-\",\"a: b\",\"a #b\"]",
     "- \"true\"\n- \"1\"\n- \"\"\n- \" a\"\n- \"yes\"\n- \"null\"\n- \"~\"\n- \"0x1\"\n- \"-\"\n"
     "- \"a: b\"\n- \"a #b\"\n"},
    {"[\"line\\nbreak\\t\",\"\\u0001\\u2028\\ufeff\",\"q\\\"\\\\\"]",
     "- \"line\\nbreak\\t\"\n- \"\\u0001\\u2028\\uFEFF\"\n- \"q\\\"\\\\\"\n"},
    {"[\"https://github.com/x/y\",\"sample/python-class\",\"python3:latest\",\"a, b\"]",
     "- https://github.com/x/y\n- sample/python-class\n- python3:latest\n- a, b\n"},
    {"{\"1\":1,\"a b\":2,\"no\":3}", "\"1\": 1\na b: 2\n\"no\": 3\n"},
};
START_TEST(values_are_written)
{
    json_auto_t *value = NULL;
    json_auto_t *again = NULL;
    struct trk_buf buf;
    struct trk_err err = {0};
    trk_buf_init(&buf, 10000);
    ck_assert_int_eq(trk_json_parse(dumped[_i].json, strlen(dumped[_i].json), &value, &err), 0);
    ck_assert_int_eq(trk_yaml_dump(value, &buf), 0);
    ck_assert_str_eq(buf.data, dumped[_i].yaml);
    ck_assert_msg(trk_yaml_parse(buf.data, buf.len, "f", &again, &err) == 0, "%s", err.text);
    ck_assert(json_equal(value, again));
    trk_buf_fini(&buf);
}
END_TEST

START_TEST(long_keys_are_read_back)
{
    char key[2000];
    struct trk_buf buf;
    struct trk_err err = {0};
    trk_buf_init(&buf, 40000);
    for (size_t len = 100; len < sizeof(key); len += 100) {
        json_auto_t *again = NULL;
        memset(key, '\a', len); /* written as \u0007 */
        key[len] = '\0';
        json_auto_t *value = json_pack("{s:[{s:s,s:{s:i}}],s:s}", "list", key, "v", "k", key, 1,
                                       key, "last");
        trk_buf_reset(&buf);
        ck_assert_int_eq(trk_yaml_dump(value, &buf), 0);
        ck_assert_msg(trk_yaml_parse(buf.data, buf.len, "f", &again, &err) == 0, "%zu: %s", len,
                      err.text);
        ck_assert(json_equal(value, again));
    }
    trk_buf_fini(&buf);
}
END_TEST

START_TEST(writing_keeps_the_cap)
{
    json_auto_t *value = json_pack("{s:[s,s,s]}", "key", "one", "two", "three");
    struct trk_buf buf;
    for (size_t cap = 1; cap < 20; cap++) {
        trk_buf_init(&buf, cap);
        ck_assert_int_eq(trk_yaml_dump(value, &buf), TRK_TOO_LARGE);
        trk_buf_fini(&buf);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("yaml");
    TCase *tc = tcase_create("yaml");
    tcase_add_loop_test(tc, good_yaml_is_read, 0, TRK_COUNT(good));
    tcase_add_loop_test(tc, bad_yaml_is_refused_with_place_and_advice, 0, TRK_COUNT(bad));
    tcase_add_loop_test(tc, deep_nesting_is_refused_at_once, 0, 4);
    tcase_add_test(tc, allowed_depth_is_read);
    tcase_add_test(tc, size_is_capped);
    tcase_add_test(tc, lines_are_told);
    tcase_add_loop_test(tc, values_are_written, 0, TRK_COUNT(dumped));
    tcase_add_test(tc, long_keys_are_read_back);
    tcase_add_test(tc, writing_keeps_the_cap);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
