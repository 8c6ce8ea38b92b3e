#include <check.h>

#include "client/url.h"
#include "libtrack/base/mem.h"

static struct trk_err err;

START_TEST(addresses_are_completed)
{
    static const char *const cases[][2] = {
        {"http://localhost:7102", "http://localhost:7102/lifecycle"},
        {"http://localhost:7102/", "http://localhost:7102/lifecycle"},
        {"localhost:7102", "https://localhost:7102/lifecycle"},
        {"racetrack.example.com", "https://racetrack.example.com/lifecycle"},
        {"https://racetrack.example.com/lifecycle", "https://racetrack.example.com/lifecycle"},
        {"https://racetrack.example.com/lifecycle//", "https://racetrack.example.com/lifecycle"},
        {"https://example.com/racetrack/lifecycle", "https://example.com/racetrack/lifecycle"},
        {"HTTP://127.0.0.1:7202", "http://127.0.0.1:7202/lifecycle"},
        {"http://[::1]:7202", "http://[::1]:7202/lifecycle"},
    };
    trk_autofree char *url = NULL;
    ck_assert_int_eq(url_complete(cases[_i][0], &url, &err), 0);
    ck_assert_str_eq(url, cases[_i][1]);
}
END_TEST

START_TEST(what_is_no_address_is_refused)
{
    static const char *const cases[] = {
        "ftp://example.com",     "file:///etc/passwd", "http://",
        "https://user:pw@host/", "http://host/?a=b",   "http://host/#x",
        "http://ho st",          "http://host\n",      "javascript://x",
    };
    char *url = NULL;
    ck_assert_int_eq(url_complete(cases[_i], &url, &err), TRK_INVALID);
    ck_assert_ptr_null(url);
}
END_TEST

START_TEST(local_means_this_machine_only)
{
    ck_assert(url_is_local("http://localhost:7202/lifecycle"));
    ck_assert(url_is_local("http://127.0.0.1:7202/lifecycle"));
    ck_assert(url_is_local("http://127.1.2.3/lifecycle"));
    ck_assert(url_is_local("http://[::1]:7202/lifecycle"));
    ck_assert(!url_is_local("http://127.0.0.1.example.com/lifecycle"));
    ck_assert(!url_is_local("http://localhost.example.com/"));
    ck_assert(!url_is_local("http://10.0.0.1/"));
    ck_assert(!url_is_local("https://example.com/127.0.0.1"));
}
END_TEST

START_TEST(a_word_is_no_address)
{
    ck_assert(!url_looks_like_one("dev"));
    ck_assert(!url_looks_like_one("pre-prod"));
    ck_assert(url_looks_like_one("localhost"));
    ck_assert(url_looks_like_one("localhost:7202"));
    ck_assert(url_looks_like_one("example.com"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("client/url");
    TCase *tc = tcase_create("all");
    tcase_add_loop_test(tc, addresses_are_completed, 0, 9);
    tcase_add_loop_test(tc, what_is_no_address_is_refused, 0, 9);
    tcase_add_test(tc, local_means_this_machine_only);
    tcase_add_test(tc, a_word_is_no_address);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
