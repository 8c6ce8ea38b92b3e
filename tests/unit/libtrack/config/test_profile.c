#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/auth/service_key.h"
#include "libtrack/base/mem.h"
#include "libtrack/config/profile.h"

#define OWN_KEY "a key of our own that nobody else knows"

START_TEST(loopback_addresses)
{
    static const char *const yes[] = {"127.0.0.1", "127.255.0.1",    "::1", "[::1]", "localhost",
                                      "LOCALHOST", "0:0:0:0:0:0:0:1"};
    static const char *const no[] = {"0.0.0.0",
                                     "",
                                     "::",
                                     "10.0.0.1",
                                     "128.0.0.1",
                                     "*",
                                     "localhost.",
                                     "127.1",
                                     "example.com",
                                     "::ffff:10.0.0.1",
                                     "127.0.0.1.example.com"};
    for (size_t i = 0; i < TRK_COUNT(yes); i++) {
        ck_assert_msg(trk_addr_is_loopback(yes[i]), "%s", yes[i]);
    }
    for (size_t i = 0; i < TRK_COUNT(no); i++) {
        ck_assert_msg(!trk_addr_is_loopback(no[i]), "%s", no[i]);
    }
    ck_assert(!trk_addr_is_loopback(NULL));
}
END_TEST

static const struct {
    const char *profile, *addr, *key;
    const char *says; /* NULL: allowed */
} rows[] = {
    {"", "127.0.0.1", OWN_KEY, NULL},
    {NULL, "0.0.0.0", OWN_KEY, NULL},
    {"dev", "0.0.0.0", TRK_DEV_AUTH_KEY, NULL},
    {"dev", "127.0.0.1", TRK_DEV_AUTH_KEY, NULL},
    {"", "127.0.0.1", TRK_DEV_AUTH_KEY, NULL},
    {"", "0.0.0.0", TRK_DEV_AUTH_KEY, "beyond this machine"},
    {NULL, "::", TRK_DEV_AUTH_KEY, "beyond this machine"},
    {"", "", TRK_DEV_AUTH_KEY, "beyond this machine"},
    {"", "10.1.2.3", TRK_DEV_SECRET_KEY, "beyond this machine"},
    {"", "127.0.0.1", "", "AUTH_KEY is required"},
    {"dev", "127.0.0.1", NULL, "AUTH_KEY is required"},
    {"", "127.0.0.1", "short", "too short: 5 bytes, needs at least 32"},
    {"dev", "127.0.0.1", "short", "too short"},
    {"Dev", "127.0.0.1", OWN_KEY, "must be 'dev' or empty, is 'Dev'"},
    {"prod", "127.0.0.1", OWN_KEY, "must be 'dev' or empty"},
};
START_TEST(rule_is_kept)
{
    struct trk_err err = {0};
    int rc = trk_profile_check(rows[_i].profile, rows[_i].addr, rows[_i].key, &err);
    ck_assert_msg((rc == 0) == (rows[_i].says == NULL), "%s", err.text);
    if (rows[_i].says != NULL) {
        ck_assert_msg(strstr(err.text, rows[_i].says) != NULL, "%s", err.text);
        ck_assert_msg(rows[_i].key == NULL || strlen(rows[_i].key) < 8 ||
                          strstr(err.text, rows[_i].key) == NULL,
                      "the key is shown: %s", err.text);
    }
}
END_TEST

START_TEST(secret_key_has_its_own_name)
{
    struct trk_err err = {0};
    ck_assert_int_eq(trk_profile_check_secret("", "127.0.0.1", "", &err), TRK_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "SECRET_KEY is required"));
    ck_assert_int_eq(trk_profile_check_secret("", "0.0.0.0", TRK_DEV_SECRET_KEY, &err),
                     TRK_INVALID);
    ck_assert_int_eq(trk_profile_check_secret("dev", "0.0.0.0", TRK_DEV_SECRET_KEY, &err), 0);
}
END_TEST

static const struct {
    const char *profile, *addr, *key, *says; /* NULL: it may listen */
} public_rows[] = {
    {"dev", "0.0.0.0", TRK_DEV_PUBLIC_KEY, NULL},
    {"", "127.0.0.1", TRK_DEV_PUBLIC_KEY, NULL},
    {"", "0.0.0.0", TRK_DEV_PUBLIC_KEY, "beyond this machine"},
    {"", "127.0.0.1", "", "is required: set it to what 'lifecycle public-key' prints"},
    {"", "127.0.0.1", OWN_KEY, "is not such a key"},
    {"prod", "127.0.0.1", TRK_DEV_PUBLIC_KEY, "RACETRACK_PROFILE"},
};
START_TEST(who_checks_tokens_has_the_public_key)
{
    struct trk_err err = {0};
    const char *says = public_rows[_i].says;
    int rc = trk_profile_check_public_key(public_rows[_i].profile, public_rows[_i].addr,
                                          public_rows[_i].key, &err);
    ck_assert_int_eq(rc, says == NULL ? 0 : TRK_INVALID);
    ck_assert_msg(says == NULL || strstr(err.text, says) != NULL, "%s", err.text);
    trk_autofree char *derived = trk_service_key_public(TRK_DEV_AUTH_KEY);
    ck_assert_str_eq(trk_profile_public_key("dev", ""), derived);
    ck_assert_str_eq(trk_profile_public_key("dev", OWN_KEY), OWN_KEY);
    ck_assert_str_eq(trk_profile_public_key("", ""), "");
}
END_TEST

START_TEST(keys_default_in_the_dev_profile_only)
{
    ck_assert_str_eq(trk_profile_auth_key("dev", ""), TRK_DEV_AUTH_KEY);
    ck_assert_str_eq(trk_profile_auth_key("dev", OWN_KEY), OWN_KEY);
    ck_assert_str_eq(trk_profile_auth_key("", ""), "");
    ck_assert_str_eq(trk_profile_secret_key("dev", ""), TRK_DEV_SECRET_KEY);
    ck_assert_str_eq(trk_profile_secret_key(NULL, ""), "");
    ck_assert_uint_ge(strlen(TRK_DEV_SECRET_KEY), TRK_KEY_BYTES_MIN);
    ck_assert(!trk_profile_is_dev(NULL) && !trk_profile_is_dev("") && trk_profile_is_dev("dev"));
}
END_TEST

static const struct {
    const char *subject, *seed; /* NULL: a fresh one */
} internal_rows[] = {
    {"e2e_test", TRK_DEV_SEED_E2E},
    {"pub", TRK_DEV_SEED_PUB},
    {"image-builder", TRK_DEV_SEED_IMAGE_BUILDER},
    {"dashboard", TRK_DEV_SEED_DASHBOARD},
    {"another", NULL},
};
START_TEST(internal_tokens_of_the_dev_profile)
{
    trk_autofree char *text = NULL;
    struct trk_token token;
    struct trk_err err = {0};
    ck_assert_int_eq(trk_profile_internal_token("dev", "", internal_rows[_i].subject, &text, &err),
                     0);
    ck_assert_msg(trk_jwt_verify(text, TRK_DEV_AUTH_KEY, &token, &err) == 0, "%s", err.text);
    ck_assert_str_eq(token.subject, internal_rows[_i].subject);
    ck_assert(internal_rows[_i].seed == NULL || strcmp(token.seed, internal_rows[_i].seed) == 0);
    ck_assert_int_eq(token.type, TRK_SUBJECT_INTERNAL);
    ck_assert_uint_eq(token.scope_count, 1);
    ck_assert(trk_token_has_scope(&token, "call_admin_api"));
}
END_TEST

START_TEST(internal_token_is_required_without_the_dev_profile)
{
    trk_autofree char *given = NULL;
    struct trk_err err = {0};
    ck_assert_int_eq(trk_profile_internal_token("", "given", "pub", &given, &err), 0);
    ck_assert_str_eq(given, "given");
    char *none = NULL;
    ck_assert_int_eq(trk_profile_internal_token("", "", "pub", &none, &err), TRK_INVALID);
    ck_assert_ptr_null(none);
    ck_assert_ptr_nonnull(strstr(err.text, "lifecycle generate-auth pub"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("profile");
    TCase *tc = tcase_create("profile");
    tcase_add_test(tc, loopback_addresses);
    tcase_add_loop_test(tc, rule_is_kept, 0, TRK_COUNT(rows));
    tcase_add_test(tc, secret_key_has_its_own_name);
    tcase_add_loop_test(tc, who_checks_tokens_has_the_public_key, 0, TRK_COUNT(public_rows));
    tcase_add_test(tc, keys_default_in_the_dev_profile_only);
    tcase_add_loop_test(tc, internal_tokens_of_the_dev_profile, 0, TRK_COUNT(internal_rows));
    tcase_add_test(tc, internal_token_is_required_without_the_dev_profile);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
