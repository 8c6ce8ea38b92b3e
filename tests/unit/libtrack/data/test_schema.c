#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/data/schema.h"

static json_t *parse(const char *text)
{
    json_t *value = NULL;
    struct trk_err err = {0};
    ck_assert_msg(trk_json_parse(text, strlen(text), &value, &err) == 0, "%s: %s", text, err.text);
    return value;
}

/* Schema, value, and the faults as "path: text" lines ("" when there are none). */
static const struct {
    const char *schema, *value, *faults;
} rows[] = {
    {"{}", "{\"anything\":[1]}", ""},
    {"{\"type\":\"string\"}", "\"a\"", ""},
    {"{\"type\":\"string\"}", "5", "must be a string, is 5: write it in quotes"},
    {"{\"type\":\"string\"}", "true", "must be a string, is true: write it in quotes"},
    {"{\"type\":\"string\"}", "{}", "must be a string, is a mapping"},
    {"{\"type\":\"integer\"}", "5", ""},
    {"{\"type\":\"integer\"}", "5.0", "must be a whole number, is 5.0"},
    {"{\"type\":\"integer\"}", "\"5\"", "must be a whole number, is \"5\""},
    {"{\"type\":\"number\"}", "5", ""},
    {"{\"type\":\"boolean\"}", "\"yes\"", "must be true or false, is \"yes\""},
    {"{\"type\":[\"string\",\"null\"]}", "null", ""},
    {"{\"type\":[\"integer\",\"null\"]}", "[]", "must be a whole number or null, is a list"},
    {"{\"type\":\"object\",\"required\":[\"a\",\"b\"]}", "{\"b\":1}", "a: is required"},
    {"{\"required\":[\"a\"],\"properties\":{\"a\":{\"description\":\"the A\"}}}", "{}",
     "a: is required: the A"},
    {"{\"properties\":{\"a\":{\"type\":\"string\"}}}", "{\"a\":1,\"b\":2}",
     "a: must be a string, is 1: write it in quotes"},
    {"{\"additionalProperties\":false,\"properties\":{\"name\":{},\"other\":{}}}", "{\"nmae\":1}",
     "nmae: is not a known key: did you mean 'name'?"},
    {"{\"additionalProperties\":false,\"properties\":{\"name\":{},\"other\":{}}}", "{\"zzz\":1}",
     "zzz: is not a known key: known are name, other"},
    {"{\"additionalProperties\":false}", "{\"zzz\":1}",
     "zzz: is not a known key: no keys are known here"},
    {"{\"required\":[\"name\"],\"additionalProperties\":false,\"properties\":{\"name\":{}}}",
     "{\"nmae\":1}", /* one mistake, one fault */
     "nmae: is not a known key: did you mean 'name'?"},
    {"{\"additionalProperties\":false,\"x-elsewhere\":{\"url\":\"git\"},\"properties\":{\"a\":{}}}",
     "{\"url\":1}", "url: is not known here: write it under 'git'"},
    {"{\"additionalProperties\":{\"type\":\"string\"}}", "{\"a\":\"x\",\"b\":1}",
     "b: must be a string, is 1: write it in quotes"},
    {"{\"items\":{\"type\":\"integer\"}}", "[1,\"x\",2,null]",
     "[1]: must be a whole number, is \"x\"\n[3]: must be a whole number, is null"},
    {"{\"properties\":{\"a\":{\"items\":{\"properties\":{\"b\":{\"enum\":[1]}}}}}}",
     "{\"a\":[{\"b\":1},{\"b\":2}]}", "a[1].b: must be 1, is 2"},
    {"{\"enum\":[\"a\",2,null]}", "2", ""},
    {"{\"enum\":[\"a\",2,null]}", "\"b\"", "must be one of \"a\", 2, null, is \"b\""},
    {"{\"const\":\"x\"}", "\"y\"", "must be \"x\", is \"y\""},
    {"{\"pattern\":\"^a+$\"}", "\"aaa\"", ""},
    {"{\"pattern\":\"^a+$\"}", "\"b\"", "must match ^a+$, is \"b\""},
    {"{\"pattern\":\"^a+$\",\"examples\":[\"aa\"]}", "\"b\"", "must look like \"aa\", is \"b\""},
    {"{\"pattern\":\"^a+$\",\"x-hint\":\"must be many a\"}", "\"b\"", "must be many a, is \"b\""},
    {"{\"pattern\":\"^a+$\"}", "5", ""}, /* only strings have a pattern */
    {"{\"minLength\":1}", "\"\"", "must not be empty"},
    {"{\"minLength\":3}", "\"ab\"", "must have at least 3 characters, has 2"},
    {"{\"maxLength\":2}", "\"\xc3\xa9\xc3\xa9\"", ""}, /* characters, not bytes */
    {"{\"maxLength\":1}", "\"\xc3\xa9\xc3\xa9\"", "must have at most 1 characters, has 2"},
    {"{\"minimum\":1,\"maximum\":3}", "0", "must be at least 1, is 0"},
    {"{\"minimum\":1,\"maximum\":3}", "3.5", "must be at most 3, is 3.5"},
    {"{\"exclusiveMinimum\":0}", "0", "must be more than 0, is 0"},
    {"{\"minItems\":1,\"maxItems\":2}", "[]", "must not be empty"},
    {"{\"minItems\":1,\"maxItems\":2}", "[1,2,3]", "must have at most 2 items, has 3"},
    {"{\"maxProperties\":1}", "{\"a\":1,\"b\":2}", "must have at most 1 keys, has 2"},
    {"{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"integer\"}]}", "1", ""},
    {"{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"integer\"}]}", "[]",
     "has none of the 2 allowed forms; for the first: must be a string, is a list"},
    {"{\"oneOf\":[{\"type\":\"number\"},{\"type\":\"integer\"}]}", "1",
     "must have one of the allowed forms, has 2 at once"},
    {"{\"anyOf\":[{\"type\":\"number\"},{\"type\":\"integer\"}]}", "1", ""},
    {"{\"$defs\":{\"n\":{\"minimum\":2}},\"items\":{\"$ref\":\"#/$defs/n\"}}", "[2,1]",
     "[1]: must be at least 2, is 1"},
    {"{\"properties\":{\"next\":{\"$ref\":\"#\"}},\"additionalProperties\":false}",
     "{\"next\":{\"next\":{\"x\":1}}}", "next.next.x: is not a known key: known are next"},
    {"{\"properties\":{\"p\":{\"type\":\"string\",\"minLength\":9,\"format\":\"password\"}}}",
     "{\"p\":12345}", "p: must be a string, is not shown: write it in quotes"},
    {"{\"properties\":{\"a\":false}}", "{\"a\":1}", "a: is not allowed"},
};
START_TEST(value_is_checked)
{
    struct trk_schema *schema = trk_schema_new(rows[_i].schema);
    json_auto_t *value = parse(rows[_i].value);
    struct trk_err err = {0};
    trk_autofree struct trk_faults *faults = trk_xcalloc(1, sizeof(*faults));
    int rc = trk_schema_check(schema, value, faults);
    ck_assert_int_eq(rc, rows[_i].faults[0] == '\0' ? 0 : TRK_SCHEMA);
    if (rc < 0) {
        ck_assert_int_eq(trk_faults_to_err(faults, TRK_SCHEMA, NULL, &err), TRK_SCHEMA);
    }
    ck_assert_str_eq(err.text, rows[_i].faults);
    trk_schema_free(schema);
}
END_TEST

START_TEST(long_values_are_cut_in_faults)
{
    struct trk_schema *schema = trk_schema_new("{\"const\":1}");
    char text[5000];
    trk_autofree struct trk_faults *faults = trk_xcalloc(1, sizeof(*faults));
    for (size_t i = 0; i + 2 < sizeof(text); i += 2) {
        memcpy(text + i, "\xc3\xa9", 3);
    }
    json_auto_t *value = json_string(text);
    ck_assert_int_eq(trk_schema_check(schema, value, faults), TRK_SCHEMA);
    ck_assert_uint_lt(strlen(faults->list[0].text), 200);
    ck_assert(trk_utf8_is_valid(faults->list[0].text, strlen(faults->list[0].text)));
    trk_schema_free(schema);
}
END_TEST

START_TEST(patterns_do_not_see_huge_texts)
{
    struct trk_schema *schema = trk_schema_new("{\"pattern\":\"^(a|aa)+$\"}");
    trk_autofree char *text = trk_xmalloc(1000001);
    trk_autofree struct trk_faults *faults = trk_xcalloc(1, sizeof(*faults));
    memset(text, 'a', 1000000);
    text[1000000] = '\0';
    json_auto_t *value = json_string(text);
    ck_assert_int_eq(trk_schema_check(schema, value, faults), TRK_SCHEMA);
    trk_schema_free(schema);
}
END_TEST

START_TEST(faults_past_the_limit_are_counted)
{
    struct trk_schema *schema = trk_schema_new("{\"items\":{\"type\":\"string\"}}");
    json_auto_t *value = json_array();
    struct trk_err err = {0};
    trk_autofree struct trk_faults *faults = trk_xcalloc(1, sizeof(*faults));
    for (int i = 0; i < 100; i++) {
        json_array_append_new(value, json_integer(i));
    }
    ck_assert_int_eq(trk_schema_check(schema, value, faults), TRK_SCHEMA);
    ck_assert_uint_eq(faults->count, 100);
    ck_assert_int_eq(trk_faults_to_err(faults, TRK_INVALID, "the list is not valid", &err),
                     TRK_INVALID);
    ck_assert(trk_str_has_prefix(err.text, "the list is not valid:\n  [0]: must be"));
    ck_assert_msg(trk_str_has_suffix(err.text, " more"), "%s", err.text);
    trk_schema_free(schema);
}
END_TEST

START_TEST(faults_have_lines_and_their_order)
{
    json_auto_t *lines = parse("{\"a\":1,\"a.b\":2,\"c\":9,\"c[1]\":10}");
    struct trk_err err = {0};
    trk_autofree struct trk_faults *faults = trk_xcalloc(1, sizeof(*faults));
    trk_faults_add(faults, "c[1]", "x", "third");
    trk_faults_add(faults, "a.b", "x", "second");
    trk_faults_add(faults, "a.missing.deeper", "x", "first");
    trk_faults_add(faults, "z", "x", "nowhere");
    trk_faults_set_lines(faults, lines);
    ck_assert_int_eq(trk_faults_to_err(faults, TRK_SCHEMA, "f", &err), TRK_SCHEMA);
    ck_assert_str_eq(err.text, "f:\n  z: nowhere\n  a.missing.deeper: first (line 1)\n"
                               "  a.b: second (line 2)\n  c[1]: third (line 10)");
    faults->count = 1;
    ck_assert_int_eq(trk_faults_to_err(faults, TRK_SCHEMA, "f", &err), TRK_SCHEMA);
    ck_assert_str_eq(err.text, "f: z: nowhere");
}
END_TEST

static const char *const broken[] = {
    "{\"typo\":1}",
    "{",
    "{\"properties\":{\"a\":{\"minimun\":1}}}",
    "{\"$ref\":\"#/$defs/none\"}",
    "{\"pattern\":\"(\"}",
    "5",
};
START_TEST(broken_schema_aborts)
{
    (void)trk_schema_new(broken[_i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("schema");
    TCase *tc = tcase_create("schema");
    tcase_add_loop_test(tc, value_is_checked, 0, TRK_COUNT(rows));
    tcase_add_test(tc, long_values_are_cut_in_faults);
    tcase_add_test(tc, patterns_do_not_see_huge_texts);
    tcase_add_test(tc, faults_past_the_limit_are_counted);
    tcase_add_test(tc, faults_have_lines_and_their_order);
    if (getenv("CK_FORK") == NULL || strcmp(getenv("CK_FORK"), "no") != 0) {
        tcase_add_loop_test_raise_signal(tc, broken_schema_aborts, SIGABRT, 0, TRK_COUNT(broken));
    }
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
