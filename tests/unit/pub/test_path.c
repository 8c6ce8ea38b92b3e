#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "pub/path.h"

static int route_of(const char *target, struct pub_route *r, char *scratch, const char **fault)
{
    struct trk_h1_slice s = {target, strlen(target)};
    return pub_path_route(r, s, "pub", scratch, fault);
}

static void check_slice(struct trk_h1_slice s, const char *want)
{
    ck_assert_msg(s.len == strlen(want) && memcmp(s.at, want, s.len) == 0, "'%.*s' is not '%s'",
                  (int)s.len, s.at, want);
}

static const struct {
    const char *target, *job, *version, *rest, *endpoint;
} jobs[] = {
    {"/pub/job/adder/latest/api/v1/perform", "adder", "latest", "/api/v1/perform",
     "/api/v1/perform"},
    {"/job/adder/1.0.0", "adder", "1.0.0", "", ""},
    {"/fatman/adder/1.x/?q=1", "adder", "1.x", "/?q=1", ""},
    {"/pub/fatman/adder/1.x?q=/../", "adder", "1.x", "?q=/../", ""},
    {"/pub/job/ad%64er/la%74est//a//b%2F/", "adder", "latest", "//a//b%2F/", "/a/b"},
    {"/pub/job/a/b/%41%2fB", "a", "b", "/%41%2fB", "/A/B"},
    {"/pub/job/a/b/...", "a", "b", "/...", "/..."},
    {"/pub/job/a/b/.a/a.", "a", "b", "/.a/a.", "/.a/a."},
    {"/pub/job/a/b/%252e%252e", "a", "b", "/%252e%252e", "/%2e%2e"},
    {"/pub/job/a/b/%C3%A9", "a", "b", "/%C3%A9", "/\xc3\xa9"},
    {"/pub/job/a/b////", "a", "b", "////", ""},
    {"/p%75b/jo%62/a/b/c", "a", "b", "/c", "/c"},
};

START_TEST(job_paths_are_taken_apart)
{
    struct pub_route r;
    char scratch[256];
    const char *fault = NULL;
    ck_assert_int_eq(route_of(jobs[_i].target, &r, scratch, &fault), 0);
    ck_assert_int_eq(r.kind, PUB_ROUTE_JOB);
    check_slice(r.job, jobs[_i].job);
    check_slice(r.version, jobs[_i].version);
    check_slice(r.rest, jobs[_i].rest);
    check_slice(r.endpoint, jobs[_i].endpoint);
}
END_TEST

static const struct {
    const char *target;
    enum pub_route_kind kind;
} others[] = {
    {"/live", PUB_ROUTE_LIVE},       {"/pub/live", PUB_ROUTE_LIVE},
    {"/pub/live/", PUB_ROUTE_LIVE},  {"/live?x", PUB_ROUTE_LIVE},
    {"/ready", PUB_ROUTE_READY},     {"/pub/health", PUB_ROUTE_HEALTH},
    {"/metrics", PUB_ROUTE_METRICS}, {"/", PUB_ROUTE_NONE},
    {"*", PUB_ROUTE_NONE},           {"/pub", PUB_ROUTE_NONE},
    {"/pub/", PUB_ROUTE_NONE},       {"/pub/pub/live", PUB_ROUTE_NONE},
    {"//live", PUB_ROUTE_NONE},      {"/live/x", PUB_ROUTE_NONE},
    {"/job", PUB_ROUTE_NONE},        {"/job/adder", PUB_ROUTE_NONE},
    {"/job/adder/", PUB_ROUTE_NONE}, {"/job//latest/x", PUB_ROUTE_NONE},
    {"/Job/a/b", PUB_ROUTE_NONE},    {"/jobs/a/b", PUB_ROUTE_NONE},
    {"/livex", PUB_ROUTE_NONE},      {"/job/a//x", PUB_ROUTE_NONE},
};

START_TEST(other_paths_are_told_apart)
{
    struct pub_route r;
    char scratch[256];
    const char *fault = NULL;
    ck_assert_int_eq(route_of(others[_i].target, &r, scratch, &fault), 0);
    ck_assert_msg(r.kind == others[_i].kind, "%s is %d", others[_i].target, r.kind);
}
END_TEST

static const char *const refused[] = {
    "/..",
    "/./live",
    "/%2e%2e/job/a/b",
    "/pub/../job/a/b",
    "/job/../b/c",
    "/job/a/../c",
    "/job/a/%2E%2E/c",
    "/job/a/b/..",
    "/job/a/b/.",
    "/job/a/b/../",
    "/job/a/b/x/../y",
    "/job/a/b/x/.%2e/y",
    "/job/a/b/x%2F..",
    "/job/a/b/x%2F..%2Fy",
    "/job/a/b/..%2Fy",
    "/job/a/b//..//",
    "/job/a/b/x\\y",
    "/job/a/b/x%5Cy",
    "/job/a/b/%00",
    "/job/a/b/%0a",
    "/job/a/b/%7F",
    "/job/a/b/%",
    "/job/a/b/%2",
    "/job/a/b/%2?x",
    "/job/a/b/%g0",
    "/job/a%2Fb/c/d",
    "/job/a/b%2Fc/d",
};

START_TEST(ambiguous_path_is_refused)
{
    struct pub_route r;
    char scratch[256];
    const char *fault = NULL;
    ck_assert_msg(route_of(refused[_i], &r, scratch, &fault) == -400, "%s", refused[_i]);
    ck_assert_ptr_nonnull(fault);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("path");
    TCase *tc = tcase_create("path");
    tcase_add_loop_test(tc, job_paths_are_taken_apart, 0, TRK_COUNT(jobs));
    tcase_add_loop_test(tc, other_paths_are_told_apart, 0, TRK_COUNT(others));
    tcase_add_loop_test(tc, ambiguous_path_is_refused, 0, TRK_COUNT(refused));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
