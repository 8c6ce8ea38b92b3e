/* What is shown and taken, from one table. */
#include <check.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/dto.h"

struct inner {
    const char *id;
};
struct outer {
    const char *text, *maybe, *json, *names;
    int64_t number, time;
    bool flag;
    const struct inner *one, *many;
    size_t many_count;
};
static const struct dto_field inner_fields[] = {{"id", DTO_TEXT, DTO_AT(struct inner, id)}};
static const struct dto inner_dto = DTO("Inner", struct inner, inner_fields);
static const struct dto_field outer_fields[] = {
    {"text", DTO_TEXT, DTO_AT(struct outer, text), .is_required = true,
     .schema = "\"maxLength\":5"},
    {"maybe", DTO_TEXT, DTO_AT(struct outer, maybe), .is_nullable = true},
    {"json", DTO_JSON, DTO_AT(struct outer, json)},
    {"names", DTO_NAMES, DTO_AT(struct outer, names)},
    {"number", DTO_INTEGER, DTO_AT(struct outer, number)},
    {"time", DTO_TIME, DTO_AT(struct outer, time), .is_nullable = true},
    {"flag", DTO_BOOLEAN, DTO_AT(struct outer, flag)},
    {"one", DTO_OBJECT, DTO_AT(struct outer, one), .of = &inner_dto},
    {"many", DTO_LIST, DTO_AT(struct outer, many), .of = &inner_dto,
     .count = offsetof(struct outer, many_count)},
};
static const struct dto outer_dto = DTO("Outer", struct outer, outer_fields);

static void expect(const struct outer *object, const char *text)
{
    struct trk_buf buf;
    trk_buf_init(&buf, 4096);
    dto_write(&buf, &outer_dto, object, NULL);
    ck_assert_str_eq(buf.data, text);
    json_auto_t *value = dto_json(&outer_dto, object, NULL);
    trk_autofree char *again = trk_json_text(value);
    ck_assert_str_eq(again, text);
    trk_buf_fini(&buf);
}

START_TEST(every_kind_of_field_is_written)
{
    const struct inner list[] = {{"a"}, {"b"}};
    const struct outer full = {.text = "say \"hi\"\n",
                               .maybe = "ü",
                               .json = "{\"x\":[1]}",
                               .names = ",one,,two,",
                               .number = -5,
                               .time = 7,
                               .flag = true,
                               .one = &list[0],
                               .many = list,
                               .many_count = 2};
    expect(&full, "{\"text\":\"say \\\"hi\\\"\\n\",\"maybe\":\"ü\",\"json\":{\"x\":[1]},\"names\":["
                  "\"one\",\"two\"],\"number\":-5,\"time\":7,\"flag\":true,\"one\":{\"id\":\"a\"},"
                  "\"many\":[{\"id\":\"a\"},{\"id\":\"b\"}]}");
    const struct outer empty = {0};
    expect(&empty, "{\"text\":\"\",\"maybe\":null,\"json\":{},\"names\":[],\"number\":0,\"time\":"
                   "null,\"flag\":false,\"one\":null,\"many\":[]}");
}
END_TEST

START_TEST(bodies_are_read_into_the_struct)
{
    static const struct dto_field fields[] = {
        {"text", DTO_TEXT, DTO_AT(struct outer, text)},
        {"maybe", DTO_TEXT, DTO_AT(struct outer, maybe)},
        {"time", DTO_TIME, DTO_AT(struct outer, time)},
        {"flag", DTO_BOOLEAN, DTO_AT(struct outer, flag)},
    };
    static const struct dto dto = DTO("Body", struct outer, fields);
    json_auto_t *body = json_pack("{s:s,s:n,s:i,s:b}", "text", "x", "maybe", "time", 9, "flag", 1);
    struct outer read;
    memset(&read, 0xff, sizeof(read));
    dto_read(&dto, body, &read);
    ck_assert_str_eq(read.text, "x");
    ck_assert_ptr_null(read.maybe);
    ck_assert_int_eq(read.time, 9);
    ck_assert(read.flag);
}
END_TEST

START_TEST(the_schema_says_the_same)
{
    const struct dto *const all[] = {&inner_dto, &outer_dto};
    trk_autofree char *text = dto_schemas(all, TRK_COUNT(all));
    json_auto_t *schemas = NULL;
    ck_assert_int_eq(trk_json_parse(text, strlen(text), &schemas, NULL), 0);
    json_auto_t *wanted = json_loads(
        "{\"Inner\":{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"string\"}}},"
        "\"Outer\":{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\","
        "\"maxLength\":5},\"maybe\":{\"type\":[\"string\",\"null\"]},\"json\":{\"type\":"
        "\"object\"},\"names\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},\"number\":{"
        "\"type\":\"integer\"},\"time\":{\"type\":[\"integer\",\"null\"],\"description\":\"Unix "
        "seconds\"},\"flag\":{\"type\":\"boolean\"},\"one\":{\"$ref\":\"#/components/schemas/"
        "Inner\"},\"many\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/components/schemas/Inner\"}}"
        "},\"required\":[\"text\"]}}",
        0, NULL);
    ck_assert_msg(json_equal(schemas, wanted), "%s", text);
}
END_TEST

int main(void)
{
    trk_json_init();
    Suite *suite = suite_create("dto");
    TCase *tcase = tcase_create("dto");
    tcase_add_test(tcase, every_kind_of_field_is_written);
    tcase_add_test(tcase, bodies_are_read_into_the_struct);
    tcase_add_test(tcase, the_schema_says_the_same);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures > 0 ? 1 : 0;
}
