#include <check.h>
#include <stdlib.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/version.h"

static const struct trk_version_candidate deployed[] = {
    {"1.0.0", "running"},       {"1.2.3", "running"},  {"1.10.0", "error"},
    {"2.0.0", "lost"},          {"2.1.0", "starting"}, {"3.0.0-rc.1", "running"},
    {"1.2.10-beta", "running"}, {"zzz", "running"},
};

static const char *pick(const char *wanted)
{
    size_t i;
    return trk_version_pick(wanted, deployed, TRK_COUNT(deployed), &i) ? deployed[i].version : NULL;
}

START_TEST(an_exact_version_wins_whatever_its_status)
{
    ck_assert_str_eq(pick("2.1.0"), "2.1.0");
    ck_assert_str_eq(pick("3.0.0-rc.1"), "3.0.0-rc.1");
    ck_assert_ptr_null(pick("9.9.9"));
}
END_TEST

START_TEST(latest_is_the_highest_stable_live_one)
{
    /* 2.1.0 is starting, 3.0.0-rc.1 has a label, zzz is no version and breaks nothing */
    ck_assert_str_eq(pick("latest"), "2.0.0");
    size_t i;
    ck_assert(!trk_version_pick("latest", deployed, 0, &i));
}
END_TEST

START_TEST(wildcards_pick_by_number)
{
    ck_assert_str_eq(pick("1.x"), "1.10.0");
    ck_assert_str_eq(pick("1.2.x"), "1.2.3");
    ck_assert_str_eq(pick("x.0.x"), "2.0.0");
    ck_assert_str_eq(pick("x"), "2.0.0");
    ck_assert_ptr_null(pick("4.x"));
    ck_assert_ptr_null(pick("2.1.x"));
    ck_assert(trk_version_is_alias("1.x"));
    ck_assert(trk_version_is_alias("latest"));
    ck_assert(!trk_version_is_alias("1.0.0"));
    ck_assert(!trk_version_is_alias("1.x-rc"));
}
END_TEST

START_TEST(public_paths_have_boundaries)
{
    ck_assert(trk_endpoint_is_always_public("/health"));
    ck_assert(trk_endpoint_is_always_public("/live/"));
    ck_assert(!trk_endpoint_is_always_public("/live//"));
    ck_assert(!trk_endpoint_is_always_public("/lively"));
    ck_assert(!trk_endpoint_is_always_public("/"));
    ck_assert(trk_endpoint_is_below("/echo", "/echo"));
    ck_assert(trk_endpoint_is_below("/echo/x", "/echo"));
    ck_assert(trk_endpoint_is_below("/echo/x", "/echo/"));
    ck_assert(!trk_endpoint_is_below("/echoes", "/echo"));
    ck_assert(trk_endpoint_is_below("/anything", "/"));
    ck_assert(!trk_endpoint_is_below("/anything", ""));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("version");
    TCase *tcase = tcase_create("rules");
    tcase_add_test(tcase, an_exact_version_wins_whatever_its_status);
    tcase_add_test(tcase, latest_is_the_highest_stable_live_one);
    tcase_add_test(tcase, wildcards_pick_by_number);
    tcase_add_test(tcase, public_paths_have_boundaries);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
