#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/semver.h"

static const struct {
    const char *text;
    uint64_t major, minor, patch;
    const char *label;
} good[] = {
    {"0.0.1", 0, 0, 1, ""},
    {"10.20.30", 10, 20, 30, ""},
    {"1.1.2-prerelease+meta", 1, 1, 2, "prerelease"},
    {"1.1.2+meta", 1, 1, 2, ""},
    {"1.1.2+meta-valid.01", 1, 1, 2, ""},
    {"1.0.0-alpha.1", 1, 0, 0, "alpha.1"},
    {"1.0.0-0A.is.legal", 1, 0, 0, "0A.is.legal"},
    {"1.0.0-alpha0.valid", 1, 0, 0, "alpha0.valid"},
    {"1.2.3----RC-SNAPSHOT.12.9.1--.12+788", 1, 2, 3, "---RC-SNAPSHOT.12.9.1--.12"},
    {"1.0.0-0", 1, 0, 0, "0"},
    {"18446744073709551615.0.0", UINT64_MAX, 0, 0, ""},
};
START_TEST(good_version_is_read)
{
    struct trk_semver v;
    struct trk_err err = {0};
    ck_assert_msg(trk_semver_parse(good[_i].text, &v, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(v.major, good[_i].major);
    ck_assert_uint_eq(v.minor, good[_i].minor);
    ck_assert_uint_eq(v.patch, good[_i].patch);
    ck_assert_str_eq(v.label, good[_i].label);
    ck_assert(trk_semver_is_stable(&v) == (good[_i].label[0] == '\0'));
}
END_TEST

/* semver.org's own list of invalid versions, and more. */
static const char *const bad[] = {
    "",
    "1",
    "1.2",
    "1.2.3.4",
    "1.2.3-",
    "1.2.3+",
    "1.2.3-0123",
    "1.2.3-0123.0123",
    "1.1.2+.123",
    "+invalid",
    "-invalid",
    "alpha",
    "alpha.beta",
    "1.0.0-alpha_beta",
    "1.0.0-alpha..",
    "1.0.0-alpha..1",
    "01.1.1",
    "1.01.1",
    "1.1.01",
    "1.2.3.DEV",
    "1.2-SNAPSHOT",
    "-1.0.3",
    "1.2.3 ",
    " 1.2.3",
    "v1.2.3",
    "1.2.3\n",
    "1..3",
    "1.2.x",
    "1.2.3-a+b+c",
    "zzz",
    "1.2.3-\xc3\xa9",
    "18446744073709551616.0.0",
    "99999999999999999999999.999999999999999999.9",
};
START_TEST(bad_version_is_refused)
{
    struct trk_semver v = {.major = 77};
    struct trk_err err = {0};
    ck_assert_msg(trk_semver_parse(bad[_i], &v, &err) == TRK_INVALID, "'%s'", bad[_i]);
    ck_assert_uint_eq(v.major, 77);
    ck_assert_ptr_nonnull(strstr(err.text, "1.2.3"));
}
END_TEST

START_TEST(label_that_does_not_fit_is_refused)
{
    struct trk_semver v;
    char text[300] = "1.0.0-";
    memset(text + 6, 'a', 199);
    ck_assert_int_eq(trk_semver_parse(text, &v, NULL), 0);
    ck_assert_uint_eq(strlen(v.label), 199);
    text[205] = 'a';
    ck_assert_int_eq(trk_semver_parse(text, &v, NULL), TRK_INVALID);
}
END_TEST

/* Ascending; SemVer §11's examples among them. */
static const char *const ascending[] = {
    "0.0.1",      "0.0.2-1",      "0.0.2",         "0.1.0",         "1.0.0-1",
    "1.0.0-2",    "1.0.0-10",     "1.0.0-alpha",   "1.0.0-alpha.1", "1.0.0-alpha.beta",
    "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1",    "1.0.0",
    "2.0.0",      "2.1.0",        "2.1.1",         "2.1.10",        "10.0.0",
};
START_TEST(versions_are_ordered)
{
    for (size_t i = 0; i < TRK_COUNT(ascending); i++) {
        for (size_t j = 0; j < TRK_COUNT(ascending); j++) {
            struct trk_semver a, b;
            ck_assert_int_eq(trk_semver_parse(ascending[i], &a, NULL), 0);
            ck_assert_int_eq(trk_semver_parse(ascending[j], &b, NULL), 0);
            int order = trk_semver_compare(&a, &b);
            ck_assert_msg((order < 0) == (i < j) && (order > 0) == (i > j), "%s against %s: %d",
                          ascending[i], ascending[j], order);
        }
    }
}
END_TEST

START_TEST(build_metadata_does_not_count)
{
    struct trk_semver a, b;
    ck_assert_int_eq(trk_semver_parse("1.0.0-rc+a", &a, NULL), 0);
    ck_assert_int_eq(trk_semver_parse("1.0.0-rc+b", &b, NULL), 0);
    ck_assert_int_eq(trk_semver_compare(&a, &b), 0);
}
END_TEST

START_TEST(wildcards_are_recognised)
{
    static const char *const yes[] = {"x", "1.x", "1.2.x", "x.2.x", "1.x.3", "1.x.x", "1.2.3.x"};
    static const char *const no[] = {"",     "1",  "1.2.3", "latest", "1.*",  "1.X", "1.x-rc",
                                     "1.x.", ".x", "1..x",  "xx",     "1.2x", "x1"};
    for (size_t i = 0; i < TRK_COUNT(yes); i++) {
        ck_assert_msg(trk_semver_is_wildcard(yes[i]), "%s", yes[i]);
    }
    for (size_t i = 0; i < TRK_COUNT(no); i++) {
        ck_assert_msg(!trk_semver_is_wildcard(no[i]), "%s", no[i]);
    }
}
END_TEST

static const struct {
    const char *version, *pattern;
    bool matches;
} patterns[] = {
    {"1.2.3", "x", true},
    {"1.2.3", "1.x", true},
    {"1.2.3", "1.2.x", true},
    {"1.2.3", "x.2.x", true},
    {"1.2.3", "x.x.3", true},
    {"1.2.3", "1.x.3", true},
    {"1.2.3", "2.x", false},
    {"1.2.3", "1.3.x", false},
    {"1.2.3", "x.3.x", false},
    {"1.2.3", "x.x.4", false},
    {"12.0.0", "1.x", false},
    {"1.2.3", "1.2.3", false},
    {"1.2.3", "1.2.3.x", false},
    {"1.2.3", "01.x", false},
    {"1.2.3-rc", "1.x", true},
    {"1.2.3", "latest", false},
    {"1.2.3", "x.2", true},
    {"1.2.3", "", false},
    {"1.2.3", "99999999999999999999999.x", false},
};
START_TEST(pattern_matches)
{
    struct trk_semver v;
    ck_assert_int_eq(trk_semver_parse(patterns[_i].version, &v, NULL), 0);
    ck_assert_msg(trk_semver_matches(&v, patterns[_i].pattern) == patterns[_i].matches,
                  "%s against %s", patterns[_i].version, patterns[_i].pattern);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("semver");
    TCase *tc = tcase_create("semver");
    tcase_add_loop_test(tc, good_version_is_read, 0, TRK_COUNT(good));
    tcase_add_loop_test(tc, bad_version_is_refused, 0, TRK_COUNT(bad));
    tcase_add_test(tc, label_that_does_not_fit_is_refused);
    tcase_add_test(tc, versions_are_ordered);
    tcase_add_test(tc, build_metadata_does_not_count);
    tcase_add_test(tc, wildcards_are_recognised);
    tcase_add_loop_test(tc, pattern_matches, 0, TRK_COUNT(patterns));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
