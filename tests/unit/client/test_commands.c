#include <check.h>

#include "client/cli.h"
#include "libtrack/base/mem.h"

static struct trk_err err;

/* Parses a command line of up to 11 words behind "racetrack". */
static int parse(struct cli *cli, const char *const *words)
{
    size_t count = 0, used = 0;
    char *argv[16];
    for (; words[count] != NULL; count++) {
        argv[count] = (char *)(uintptr_t)words[count];
    }
    argv[count] = NULL;
    *cli = (struct cli){0};
    cli->command = command_find(words, count, &used);
    ck_assert_ptr_nonnull(cli->command);
    return cli_parse(cli, (int)(count - used + 1), argv + used - 1, &err);
}
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

START_TEST(every_spelling_finds_its_command)
{
    static const struct {
        const char *words[4], *name;
    } cases[] = {
        {{"deploy", "."}, "deploy"},
        {{"set", "alias", "dev", "x"}, "set alias"},
        {{"config", "alias", "set", "dev"}, "config alias set"},
        {{"config", "credentials", "set"}, "config credentials set"},
        {{"config", "show"}, "config show"},
        {{"config", "racetrack_url", "x"}, "config racetrack_url"},
        {{"get", "auth-token"}, "get auth-token"},
        {{"build-logs"}, "build-logs"},
    };
    for (size_t i = 0; i < TRK_COUNT(cases); i++) {
        size_t count = 0, used = 0;
        while (count < 4 && cases[i].words[count] != NULL) {
            count++;
        }
        const struct command *found = command_find(cases[i].words, count, &used);
        ck_assert_msg(found != NULL, "%s", cases[i].name);
        ck_assert_str_eq(found->name, cases[i].name);
    }
    size_t used = 0;
    ck_assert_ptr_null(command_find(WORDS("config"), 1, &used));
    ck_assert_ptr_null(command_find(WORDS("dep"), 1, &used));
    ck_assert_ptr_null(command_find(WORDS("deploy2"), 1, &used));
}
END_TEST

START_TEST(options_may_stand_anywhere)
{
    struct cli cli;
    ck_assert_int_eq(parse(&cli, WORDS("deploy", "--force", "dir", "-e", "a=1", "dev",
                                       "--extra-vars=b.c=2", "-v")),
                     0);
    ck_assert_uint_eq(cli.word_count, 2);
    ck_assert_str_eq(cli.words[0], "dir");
    ck_assert_str_eq(cli.words[1], "dev");
    ck_assert_ptr_nonnull(cli.values[OPT_FORCE]);
    ck_assert_str_eq(cli.extra_vars[0], "a=1");
    ck_assert_str_eq(cli.extra_vars[1], "b.c=2");
    ck_assert_ptr_null(cli.extra_vars[2]);
    ck_assert(cli.is_verbose);
    ck_assert_int_eq(parse(&cli, WORDS("logs", "adder", "--tail", "5", "-f", "--remote=dev")), 0);
    ck_assert_str_eq(cli.values[OPT_TAIL], "5");
    ck_assert_str_eq(cli.values[OPT_REMOTE], "dev");
}
END_TEST

START_TEST(a_word_behind_two_dashes_is_no_option)
{
    struct cli cli;
    ck_assert_int_eq(parse(&cli, WORDS("call", "adder", "/x", "--", "-1")), 0);
    ck_assert_str_eq(cli.words[2], "-1");
}
END_TEST

START_TEST(wrong_usage_is_named)
{
    static const struct {
        const char *words[6], *text;
    } cases[] = {
        {{"deploy", "--frob"}, "--frob"},
        {{"deploy", "-x"}, "-x"},
        {{"list", "--force"}, "--force"},
        {{"deploy", "a", "b", "c"}, "unexpected argument c"},
        {{"set", "alias", "dev"}, "NAME URL"},
        {{"call", "adder"}, "NAME ENDPOINT PAYLOAD"},
        {{"logs", "adder", "--tail"}, "--tail needs a value"},
        {{"deploy", "-e"}, "--extra-vars needs a value"},
        {{"version", "x"}, "unexpected argument x"},
    };
    struct cli cli;
    ck_assert_int_eq(parse(&cli, cases[_i].words), TRK_INVALID);
    ck_assert_msg(strstr(err.text, cases[_i].text) != NULL, "%s", err.text);
}
END_TEST

START_TEST(too_many_repeats_are_refused)
{
    struct cli cli = {0};
    size_t used;
    const char *name = "deploy";
    cli.command = command_find(&name, 1, &used);
    char *argv[2 * CLI_REPEATS_MAX + 4];
    int argc = 0;
    argv[argc++] = (char *)(uintptr_t)name;
    for (int i = 0; i <= CLI_REPEATS_MAX; i++) {
        argv[argc++] = (char *)(uintptr_t) "-e";
        argv[argc++] = (char *)(uintptr_t) "a=1";
    }
    argv[argc] = NULL;
    ck_assert_int_eq(cli_parse(&cli, argc, argv, &err), TRK_INVALID);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("client/commands");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, every_spelling_finds_its_command);
    tcase_add_test(tc, options_may_stand_anywhere);
    tcase_add_test(tc, a_word_behind_two_dashes_is_no_option);
    tcase_add_loop_test(tc, wrong_usage_is_named, 0, 9);
    tcase_add_test(tc, too_many_repeats_are_refused);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
