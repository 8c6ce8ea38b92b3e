/* The OpenAPI document and the docs page say what the tables say. */
#include "libtrack/base/crypto.h"
#include "libtrack/base/str.h"
#include "tests/unit/libtrack/http/http_service.h"

static json_t *document;
static struct service service;

static void setup(void)
{
    service = (struct service){0};
    service_start(&service, NULL);
    struct trk_http_options options = service_options(&service);
    document = trk_http_openapi(&options);
}

static void teardown(void)
{
    json_decref(document);
    service_stop(&service);
}

/* "a/b/c" within value; '~' stands for '/'. */
static json_t *at(json_t *value, const char *path)
{
    trk_autofree char *copy = trk_xstrdup(path);
    char *save = NULL;
    for (char *key = strtok_r(copy, "/", &save); key != NULL; key = strtok_r(NULL, "/", &save)) {
        for (char *p = key; *p != '\0'; p++) {
            *p = *p == '~' ? '/' : *p;
        }
        value = json_is_array(value) ? json_array_get(value, strtoul(key, NULL, 10))
                                     : json_object_get(value, key);
    }
    return value;
}

static const char *text_at(const char *path)
{
    const char *text = json_string_value(at(document, path));
    return text == NULL ? "(none)" : text;
}

START_TEST(test_head)
{
    ck_assert_str_eq(text_at("openapi"), "3.1.0");
    ck_assert_str_eq(text_at("info/title"), "Test & <service>");
    ck_assert_str_eq(text_at("info/version"), "1.2.3");
    ck_assert_str_eq(text_at("tags/0/name"), "test");
    ck_assert_str_eq(text_at("components/securitySchemes/token/name"), "X-Racetrack-Auth");
    ck_assert(json_is_object(at(document, "components/schemas/Echo")));
    ck_assert(json_is_object(at(document, "components/schemas/Error")));
}
END_TEST

START_TEST(test_operation)
{
    static const char get[] = "paths/~api~v1~hello~{name}/get";
    json_t *op = at(document, get);
    ck_assert_ptr_nonnull(op);
    ck_assert_str_eq(json_string_value(at(op, "operationId")), "get_api_v1_hello_name");
    ck_assert_str_eq(json_string_value(at(op, "summary")), "Says <hello> & more.");
    ck_assert_str_eq(json_string_value(at(op, "x-access")), "public");
    ck_assert_ptr_null(at(op, "security"));
    ck_assert_str_eq(json_string_value(at(op, "parameters/0/name")), "name");
    ck_assert_str_eq(json_string_value(at(op, "parameters/0/in")), "path");
    ck_assert(json_is_true(at(op, "parameters/0/required")));
    ck_assert_str_eq(json_string_value(at(op, "parameters/1/name")), "n");
    ck_assert_str_eq(json_string_value(at(op, "parameters/1/schema/type")), "integer");
    ck_assert_int_eq(json_integer_value(at(op, "parameters/1/schema/default")), 7);
    ck_assert_str_eq(json_string_value(at(op, "parameters/1/description")), "a number");
    ck_assert(json_is_false(at(op, "parameters/2/schema/default")));
    ck_assert_str_eq(json_string_value(at(op, "parameters/3/schema/type")), "string");
    ck_assert_ptr_null(at(op, "parameters/3/schema/default"));
    op = at(document, "paths/~api~v1~hello~{name}/delete");
    ck_assert(json_is_array(at(op, "security/0/token")));
    ck_assert(json_is_object(at(op, "responses/401")));
    op = at(document, "paths/~api~v1~echo/post");
    ck_assert_str_eq(json_string_value(at(op, "requestBody/content/application~json/schema/$ref")),
                     "#/components/schemas/Echo");
    ck_assert_str_eq(
        json_string_value(at(op, "responses/200/content/application~json/schema/$ref")),
        "#/components/schemas/Echo");
    ck_assert(json_is_true(at(document, "paths/~fail/get/deprecated")));
    ck_assert(json_is_object(
        at(document, "paths/~api~v1~upload/put/requestBody/content/application~octet-stream")));
}
END_TEST

/* Each route that is not hidden, and no other. */
START_TEST(test_complete)
{
    size_t shown = 0;
    for (size_t i = 0; i < TRK_COUNT(service_routes); i++) {
        const struct trk_route *route = &service_routes[i];
        json_t *item = json_object_get(json_object_get(document, "paths"), route->path);
        char method[16] = "";
        for (size_t k = 0; route->method[k] != '\0'; k++) {
            method[k] = (char)(route->method[k] | 0x20);
        }
        bool is_shown = json_object_get(item, method) != NULL;
        ck_assert_msg(is_shown == ((route->flags & TRK_ROUTE_HIDDEN) == 0), "%s", route->path);
        shown += is_shown;
    }
    size_t operations = 0;
    const char *path;
    json_t *item;
    json_object_foreach (json_object_get(document, "paths"), path, item) {
        operations += json_object_size(item);
    }
    ck_assert_uint_eq(operations, shown);
}
END_TEST

static void check_refs(json_t *value)
{
    const char *key;
    json_t *member;
    size_t i;
    if (json_is_array(value)) {
        json_array_foreach (value, i, member) {
            check_refs(member);
        }
    }
    json_object_foreach (value, key, member) {
        if (strcmp(key, "$ref") == 0) {
            const char *ref = json_string_value(member);
            ck_assert_msg(ref != NULL && strncmp(ref, "#/", 2) == 0 &&
                              at(document, ref + 2) != NULL,
                          "%s leads nowhere", ref);
        }
        check_refs(member);
    }
}

START_TEST(test_refs)
{
    check_refs(document);
}
END_TEST

START_TEST(test_served)
{
    struct raw_answer answer = ask(&service, "GET", "/lifecycle/openapi.json", "", NULL);
    ck_assert_int_eq(answer.status, 200);
    ck_assert_str_eq(raw_header(&answer, "Content-Type"), "application/json");
    json_auto_t *served = json_loads(answer.body, 0, NULL);
    ck_assert(json_equal(served, document));
    raw_answer_fini(&answer);
}
END_TEST

/* 'sha256-…' of what stands between two marks. Returns owned. */
static char *hash_of(const char *page, const char *begin, const char *end)
{
    const char *from = strstr(page, begin);
    ck_assert_ptr_nonnull(from);
    from += strlen(begin);
    const char *to = strstr(from, end);
    ck_assert_ptr_nonnull(to);
    unsigned char digest[TRK_SHA256_SIZE];
    trk_sha256(from, (size_t)(to - from), digest);
    struct trk_buf buf;
    trk_buf_init(&buf, 200);
    (void)trk_buf_adds(&buf, "'sha256-");
    (void)trk_base64_encode(&buf, digest, sizeof(digest));
    (void)trk_buf_addc(&buf, '\'');
    return trk_buf_steal(&buf, NULL);
}

START_TEST(test_page)
{
    static const char *const targets[] = {"/docs", "/", "/lifecycle/", "/lifecycle/docs"};
    for (size_t i = 0; i < TRK_COUNT(targets); i++) {
        struct raw_answer answer = ask(&service, "GET", targets[i], "", NULL);
        ck_assert_int_eq(answer.status, 200);
        ck_assert_str_eq(raw_header(&answer, "Content-Type"), "text/html; charset=utf-8");
        ck_assert_str_eq(raw_header(&answer, "X-Frame-Options"), "DENY");
        trk_autofree char *policy = trk_xstrdup(raw_header(&answer, "Content-Security-Policy"));
        trk_autofree char *script = hash_of(answer.body, "<script>", "</script>");
        trk_autofree char *style = hash_of(answer.body, "<style>", "</style>");
        ck_assert_msg(strstr(policy, "default-src 'none'") != NULL &&
                          strstr(policy, script) != NULL && strstr(policy, style) != NULL &&
                          strstr(policy, "unsafe") == NULL,
                      "%s", policy);
        ck_assert_ptr_nonnull(strstr(answer.body, "Test &amp; &lt;service&gt;"));
        ck_assert_ptr_nonnull(strstr(answer.body, "Says &lt;hello&gt; &amp; more."));
        ck_assert_ptr_null(strstr(answer.body, "<hello>"));
        ck_assert_ptr_null(strstr(answer.body, "src="));
        ck_assert_ptr_null(strstr(answer.body, "://"));
        for (size_t k = 0; k < TRK_COUNT(service_routes); k++) {
            const struct trk_route *route = &service_routes[k];
            trk_autofree char *code = trk_xasprintf(">%s</code>", route->path);
            ck_assert_msg((strstr(answer.body, code) != NULL) ==
                              ((route->flags & TRK_ROUTE_HIDDEN) == 0),
                          "%s", route->path);
        }
        ck_assert_ptr_nonnull(strstr(answer.body, "<span class=\"a\">scope:write</span>"));
        raw_answer_fini(&answer);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("openapi");
    TCase *tcase = tcase_create("openapi");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_head);
    tcase_add_test(tcase, test_operation);
    tcase_add_test(tcase, test_complete);
    tcase_add_test(tcase, test_refs);
    tcase_add_test(tcase, test_served);
    tcase_add_test(tcase, test_page);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? 1 : 0;
}
