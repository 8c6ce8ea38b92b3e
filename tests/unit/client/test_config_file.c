#include <check.h>
#include <sys/stat.h>

#include "client/config_file.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"

static struct trk_err err;
static char *path;

/* Each test has a home of its own: check forks, so the environment change stays there. */
static void setup(void)
{
    trk_autofree char *home = trk_xasprintf("%s/home-%d", getenv("TEST_TMP"), (int)getpid());
    trk_autofree char *folder = trk_xasprintf("%s/.racetrack", home);
    path = trk_xasprintf("%s/config.yaml", folder);
    ck_assert_int_eq(trk_rm_rf(home, &err), 0);
    ck_assert_int_eq(trk_mkdir_p(folder, 0700, &err), 0);
    ck_assert_int_eq(setenv("HOME", home, 1), 0);
}

static void teardown(void)
{
    free(path);
}

static void write_config(const char *text)
{
    ck_assert_int_eq(trk_file_write(path, text, strlen(text), 0600, &err), 0);
}

static struct config_file *open_config(bool to_change)
{
    struct config_file *config = NULL;
    ck_assert_msg(config_file_open(to_change, &config, &err) == 0, "%s", err.text);
    return config;
}

START_TEST(a_missing_file_is_empty_and_has_the_default_remote)
{
    struct config_file *config = open_config(false);
    ck_assert_str_eq(config_file_remote(config), "http://127.0.0.1:7002");
    ck_assert_ptr_null(config_file_token(config, "http://x/lifecycle"));
    config_file_close(config);
    ck_assert(!trk_path_exists(path));
}
END_TEST

START_TEST(a_change_keeps_the_rest_and_is_private)
{
    write_config("lifecycle_url: dev\nlifecycle_url_aliases:\n  dev: http://localhost:7202\n"
                 "user_auths:\n  http://other/lifecycle: abc\nfuture_key:\n  - 1\n  - two\n");
    struct config_file *config = open_config(true);
    config_file_set(config, "user_auths", "http://localhost:7202/lifecycle", json_string("tok"));
    ck_assert_int_eq(config_file_save(config, &err), 0);
    config_file_close(config);

    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    config = open_config(false);
    ck_assert_str_eq(config_file_token(config, "http://other/lifecycle"), "abc");
    ck_assert_str_eq(config_file_token(config, "http://localhost:7202/lifecycle"), "tok");
    ck_assert_str_eq(config_file_alias_of(config, "http://localhost:7202/lifecycle"), "dev");
    config_file_close(config);
    trk_autofree char *text = NULL;
    size_t len;
    ck_assert_int_eq(trk_file_read(path, 65536, &text, &len, &err), 0);
    ck_assert_ptr_nonnull(strstr(text, "future_key:"));
    ck_assert_ptr_nonnull(strstr(text, "- two"));
}
END_TEST

START_TEST(an_alias_is_suggested_when_no_server_is_the_default)
{
    static const struct {
        const char *file, *suggestion;
    } rows[] = {
        {"lifecycle_url_aliases:\n  dev: http://localhost:7202\n", "dev"},
        {"lifecycle_url: ''\nlifecycle_url_aliases:\n  dev: http://localhost:7202\n", "dev"},
        {"lifecycle_url: dev\nlifecycle_url_aliases:\n  dev: http://localhost:7202\n", NULL},
        {"lifecycle_url_aliases: {}\n", NULL},
        {"user_auths: {}\n", NULL},
    };
    for (size_t i = 0; i < TRK_COUNT(rows); i++) {
        write_config(rows[i].file);
        struct config_file *config = open_config(false);
        const char *suggestion = config_file_suggestion(config);
        ck_assert_msg((suggestion == NULL) == (rows[i].suggestion == NULL) &&
                          (suggestion == NULL || strcmp(suggestion, rows[i].suggestion) == 0),
                      "%s", rows[i].file);
        config_file_close(config);
    }
}
END_TEST

START_TEST(removing_the_last_token_leaves_a_file_that_reads)
{
    write_config("user_auths:\n  http://a/lifecycle: abc\n");
    struct config_file *config = open_config(true);
    config_file_set(config, "user_auths", "http://a/lifecycle", NULL);
    ck_assert_int_eq(config_file_save(config, &err), 0);
    config_file_close(config);
    config = open_config(false);
    ck_assert_ptr_null(config_file_token(config, "http://a/lifecycle"));
    config_file_close(config);
}
END_TEST

START_TEST(a_link_stays_a_link)
{
    trk_autofree char *elsewhere = trk_xasprintf("%s-elsewhere", path);
    ck_assert_int_eq(trk_file_write(elsewhere, "lifecycle_url: a\n", 17, 0600, &err), 0);
    ck_assert_int_eq(symlink(elsewhere, path), 0);
    struct config_file *config = open_config(true);
    config_file_set(config, NULL, "lifecycle_url", json_string("b"));
    ck_assert_int_eq(config_file_save(config, &err), 0);
    config_file_close(config);
    struct stat st;
    ck_assert_int_eq(lstat(path, &st), 0);
    ck_assert(S_ISLNK(st.st_mode));
    config = open_config(false);
    ck_assert_str_eq(config_file_remote(config), "b");
    config_file_close(config);
}
END_TEST

START_TEST(aliases_resolve_and_unknown_ones_list_the_known)
{
    write_config("lifecycle_url: dev\nlifecycle_url_aliases:\n  dev: http://localhost:7202\n"
                 "  prod: racetrack.example.com\n");
    struct config_file *config = open_config(false);
    trk_autofree char *by_default = NULL, *by_alias = NULL, *by_url = NULL;
    ck_assert_int_eq(config_file_resolve(config, NULL, &by_default, &err), 0);
    ck_assert_str_eq(by_default, "http://localhost:7202/lifecycle");
    ck_assert_int_eq(config_file_resolve(config, "prod", &by_alias, &err), 0);
    ck_assert_str_eq(by_alias, "https://racetrack.example.com/lifecycle");
    ck_assert_int_eq(config_file_resolve(config, "other.example.com", &by_url, &err), 0);
    ck_assert_str_eq(by_url, "https://other.example.com/lifecycle");
    char *none = NULL;
    ck_assert_int_eq(config_file_resolve(config, "preprod", &none, &err), TRK_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(err.text, "http://localhost:7202"));
    ck_assert_ptr_nonnull(strstr(err.text, "racetrack set alias preprod"));
    config_file_close(config);
}
END_TEST

START_TEST(git_credentials_from_the_most_exact_entry)
{
    write_config("git_credentials:\n"
                 "  https://github.com/a/b.git: {username: exact, password: p}\n"
                 "  https://github.com/a/c: {username: path, password: p}\n"
                 "  https://github.com: {username: scheme, password: p}\n"
                 "  gitlab.com: {username: host, password: p}\n");
    struct config_file *config = open_config(false);
    static const char *const cases[][2] = {
        {"https://github.com/a/b.git", "exact"}, {"https://github.com/a/c?x=1", "path"},
        {"https://me@github.com/a/c", "path"},   {"https://github.com/other", "scheme"},
        {"https://gitlab.com/x/y", "host"},
    };
    for (size_t i = 0; i < TRK_COUNT(cases); i++) {
        const json_t *found = config_file_git_credentials(config, cases[i][0]);
        ck_assert_msg(found != NULL, "%s", cases[i][0]);
        ck_assert_str_eq(json_string_value(json_object_get(found, "username")), cases[i][1]);
    }
    ck_assert_ptr_null(config_file_git_credentials(config, "https://gitlab.com.evil.org/x"));
    ck_assert_ptr_null(config_file_git_credentials(config, "https://example.com/x"));
    config_file_close(config);
}
END_TEST

START_TEST(shown_without_secrets)
{
    write_config("git_credentials:\n  github.com: {username: me, password: hunter2}\n"
                 "user_auths:\n  http://a/lifecycle: secret-token\n");
    struct config_file *config = open_config(false);
    struct trk_buf buf;
    trk_buf_init(&buf, 65536);
    ck_assert_int_eq(config_file_dump_hidden(config, &buf), 0);
    ck_assert_ptr_null(strstr(buf.data, "hunter2"));
    ck_assert_ptr_null(strstr(buf.data, "secret-token"));
    ck_assert_ptr_nonnull(strstr(buf.data, "http://a/lifecycle"));
    ck_assert_str_eq(config_file_token(config, "http://a/lifecycle"), "secret-token");
    trk_buf_fini(&buf);
    config_file_close(config);
}
END_TEST

START_TEST(a_broken_file_is_named_and_not_replaced)
{
    static const char *const broken[] = {"- a\n- b\n", "user_auths: [a]\n", "a: [\n"};
    write_config(broken[_i]);
    struct config_file *config = NULL;
    ck_assert_int_lt(config_file_open(true, &config, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "config.yaml"));
    trk_autofree char *text = NULL;
    size_t len;
    ck_assert_int_eq(trk_file_read(path, 65536, &text, &len, &err), 0);
    ck_assert_str_eq(text, broken[_i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("client/config_file");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_missing_file_is_empty_and_has_the_default_remote);
    tcase_add_test(tc, a_change_keeps_the_rest_and_is_private);
    tcase_add_test(tc, an_alias_is_suggested_when_no_server_is_the_default);
    tcase_add_test(tc, removing_the_last_token_leaves_a_file_that_reads);
    tcase_add_test(tc, a_link_stays_a_link);
    tcase_add_test(tc, aliases_resolve_and_unknown_ones_list_the_known);
    tcase_add_test(tc, git_credentials_from_the_most_exact_entry);
    tcase_add_test(tc, shown_without_secrets);
    tcase_add_loop_test(tc, a_broken_file_is_named_and_not_replaced, 0, 3);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
