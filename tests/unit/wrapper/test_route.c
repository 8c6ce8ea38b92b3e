#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "wrapper/front.h"
#include "wrapper/route.h"

START_TEST(test_table)
{
    static const struct {
        const char *target;
        int status;
        enum route_kind kind;
        const char *base, *path, *query;
    } cases[] = {
        {"/", 0, ROUTE_HOME, "", "/", ""},
        {"/?a=1", 0, ROUTE_HOME, "", "/", "?a=1"},
        {"/live", 0, ROUTE_LIVE, "", "/live", ""},
        {"/live/", 0, ROUTE_UNKNOWN, "", "/live/", ""},
        {"/ready?x", 0, ROUTE_READY, "", "/ready", "?x"},
        {"/health", 0, ROUTE_HEALTH, "", "/health", ""},
        {"/metrics", 0, ROUTE_METRICS, "", "/metrics", ""},
        {"/docs", 0, ROUTE_DOCS, "", "/docs", ""},
        {"/openapi.json", 0, ROUTE_OPENAPI, "", "/openapi.json", ""},
        {"/api/v1/parameters", 0, ROUTE_PARAMETERS, "", "/api/v1/parameters", ""},
        {"/api/v1/perform", 0, ROUTE_API, "", "/perform", ""},
        {"/api/v1/perform/x", 0, ROUTE_API, "", "/perform/x", ""},
        {"/api/v1/", 0, ROUTE_API, "", "/", ""},
        {"/api/v1", 0, ROUTE_UNKNOWN, "", "/api/v1", ""},
        {"/pub/job/a/1.0.0", 0, ROUTE_ADD_SLASH, "/pub/job/a/1.0.0", "", ""},
        {"/pub/job/a/1/", 0, ROUTE_HOME, "/pub/job/a/1", "/", ""},
        {"/pub/job/a/latest/api/v1/perform?q=/", 0, ROUTE_API, "/pub/job/a/latest", "/perform",
         "?q=/"},
        {"/pub/fatman/a/1/live", 0, ROUTE_LIVE, "/pub/fatman/a/1", "/live", ""},
        {"/pub/other/a/1/live", 0, ROUTE_UNKNOWN, "", "/pub/other/a/1/live", ""},
        {"/pub/job//1/live", 0, ROUTE_UNKNOWN, "", "/pub/job//1/live", ""},
        {"/pub/job/a//live", 0, ROUTE_UNKNOWN, "", "/pub/job/a//live", ""},
        {"/pub/job/a", 0, ROUTE_UNKNOWN, "", "/pub/job/a", ""},
        {"/pub/job/", 0, ROUTE_UNKNOWN, "", "/pub/job/", ""},
        /* decoded once */
        {"/%6Cive", 0, ROUTE_LIVE, "", "/live", ""},
        {"/api/v1/%2570", 0, ROUTE_API, "", "/%70", ""},
        {"/pub/job/a%2F1/live", 0, ROUTE_ADD_SLASH, "/pub/job/a%2F1/live", "", ""},
        {"/api/v1/a%00b", 400, ROUTE_UNKNOWN, "", "", ""},
        {"/%", 400, ROUTE_UNKNOWN, "", "", ""},
        {"/%4", 400, ROUTE_UNKNOWN, "", "", ""},
        {"/%g0", 400, ROUTE_UNKNOWN, "", "", ""},
        {"*", 400, ROUTE_UNKNOWN, "", "", ""},
        {"?a", 400, ROUTE_UNKNOWN, "", "", ""},
    };
    for (size_t i = 0; i < TRK_COUNT(cases); i++) {
        const char *target = cases[i].target;
        struct route route;
        int status = route_resolve(target, strlen(target), &route);
        ck_assert_msg(status == cases[i].status, "%s: status %d", target, status);
        if (status != 0) {
            continue;
        }
        ck_assert_msg(route.kind == cases[i].kind, "%s: kind %d", target, route.kind);
        ck_assert_msg(strcmp(route.path, cases[i].path) == 0, "%s: path %s", target, route.path);
        ck_assert_msg(route.base_len == strlen(cases[i].base) &&
                          memcmp(route.base, cases[i].base, route.base_len) == 0,
                      "%s: base %.*s", target, (int)route.base_len, route.base);
        ck_assert_msg(route.query_len == strlen(cases[i].query) &&
                          memcmp(route.query, cases[i].query, route.query_len) == 0,
                      "%s: query %.*s", target, (int)route.query_len, route.query);
    }
}
END_TEST

START_TEST(test_length)
{
    char target[ROUTE_PATH_MAX + 8];
    struct route route;
    memset(target, 'a', sizeof(target));
    target[0] = '/';
    ck_assert_int_eq(route_resolve(target, ROUTE_PATH_MAX - 1, &route), 0);
    ck_assert_uint_eq(strlen(route.path), ROUTE_PATH_MAX - 1);
    ck_assert_int_eq(route_resolve(target, ROUTE_PATH_MAX, &route), 414);
    /* A cut target ends where it ends, not where its memory does. */
    ck_assert_int_eq(route_resolve("/%41", 3, &route), 400);
    ck_assert_int_eq(route_resolve("", 0, &route), 400);
}
END_TEST

START_TEST(test_static_lookup)
{
    struct job_static entries[] = {
        {.path = (char[]){"/a"}, .is_directory = true},
        {.path = (char[]){"/a/b"}, .is_directory = true},
        {.path = (char[]){"/a/b/c.txt"}},
        {.path = (char[]){"/file"}},
    };
    const struct job job = {.statics = entries, .static_count = TRK_COUNT(entries)};
    static const struct {
        const char *path;
        int entry;
        const char *rest;
    } cases[] = {
        {"/a", 0, ""},     {"/a/", 0, ""},         {"/a/x", 0, "x"},
        {"/ab", -1, NULL}, {"/a/b/x/y", 1, "x/y"}, {"/a/b/c.txt", 2, ""},
        {"/file", 3, ""},  {"/file/x", -1, NULL},  {"/", -1, NULL},
    };
    for (size_t i = 0; i < TRK_COUNT(cases); i++) {
        const char *rest = NULL;
        const struct job_static *found = job_find_static(&job, cases[i].path, &rest);
        ck_assert_msg(found == (cases[i].entry >= 0 ? &entries[cases[i].entry] : NULL), "%s",
                      cases[i].path);
        if (found != NULL) {
            ck_assert_str_eq(rest, cases[i].rest);
        }
    }
    ck_assert_str_eq(static_mime("/x.d/noext"), "text/plain; charset=utf-8");
    ck_assert_str_eq(static_mime("a.HTML"), "text/html; charset=utf-8");
    ck_assert_str_eq(static_mime("a.unknown"), "text/plain; charset=utf-8");
}
END_TEST

START_TEST(test_call_list)
{
    struct call_list list = {0};
    struct call calls[3] = {0};
    for (size_t i = 0; i < 3; i++) {
        call_list_append(&list, &calls[i]);
    }
    call_list_remove(&list, &calls[1]);
    ck_assert_ptr_eq(list.first->next, &calls[2]);
    ck_assert_ptr_eq(list.last->prev, &calls[0]);
    call_list_remove(&list, &calls[0]);
    call_list_remove(&list, &calls[2]);
    ck_assert_ptr_null(list.first);
    ck_assert_ptr_null(list.last);
    ck_assert_uint_eq(list.count, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("route");
    TCase *tcase = tcase_create("route");
    tcase_add_test(tcase, test_table);
    tcase_add_test(tcase, test_length);
    tcase_add_test(tcase, test_static_lookup);
    tcase_add_test(tcase, test_call_list);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
