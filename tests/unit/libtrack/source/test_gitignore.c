#include <check.h>

#include "libtrack/base/mem.h"
#include "libtrack/source/gitignore.h"

START_TEST(patterns_match_as_gitignore_5_says)
{
    static const struct {
        const char *pattern, *text;
        bool matches;
    } cases[] = {
        {"*.log", "a.log", true},
        {"*.log", "a.log.txt", false},
        {"*", "anything", true},
        {"*", "a/b", false},
        {"a*b*c", "aXXbYYc", true},
        {"a*b*c", "aXXbYYd", false},
        {"?.c", "x.c", true},
        {"?.c", "/.c", false},
        {"[a-c]x", "bx", true},
        {"[a-c]x", "dx", false},
        {"[!a-c]x", "dx", true},
        {"[^a-c]x", "ax", false},
        {"[]-]x", "]x", true},
        {"[a", "[a", true},
        {"\\*", "*", true},
        {"\\*", "a", false},
        {"\\#x", "#x", true},
        {"build/out", "build/out", true},
        {"build/*", "build/a/b", false},
        {"**/foo", "foo", true},
        {"**/foo", "a/b/foo", true},
        {"**/foo", "a/b/foox", false},
        {"foo/**", "foo/a/b", true},
        {"foo/**", "foo", false},
        {"a/**/b", "a/b", true},
        {"a/**/b", "a/x/y/b", true},
        {"a/**/b", "ab", false},
        {"a/**/*.c", "a/x/y.c", true},
        {"**/a/*/c", "x/a/y/a/z/c", true},
        {"a**b", "aXXb", true},
        {"a**b", "a/b", false},
    };
    ck_assert_uint_lt((size_t)_i, TRK_COUNT(cases));
    ck_assert_msg(trk_gitignore_match(cases[_i].pattern, cases[_i].text) == cases[_i].matches,
                  "pattern %s, text %s", cases[_i].pattern, cases[_i].text);
}
END_TEST

START_TEST(stars_do_not_take_for_ever)
{
    char text[2001];
    memset(text, 'a', 2000);
    text[2000] = '\0';
    ck_assert(!trk_gitignore_match("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", text));
    ck_assert(!trk_gitignore_match("**/*a*a*a*a*a*a*a*a*a*a*a*a*a*b", text));
}
END_TEST

static bool ignored(const char *lines, const char *path, bool is_folder)
{
    struct trk_gitignore *rules = trk_gitignore_new();
    trk_gitignore_add_lines(rules, "", lines);
    bool result = trk_gitignore_is_ignored(rules, path, is_folder);
    trk_gitignore_free(rules);
    return result;
}

START_TEST(later_lines_win_and_negation_brings_back)
{
    ck_assert(ignored("*.log\n", "a/b.log", false));
    ck_assert(!ignored("*.log\n!keep.log\n", "a/keep.log", false));
    ck_assert(ignored("!keep.log\n*.log\n", "a/keep.log", false));
    ck_assert(!ignored("*\n!*.py\n", "model.py", false));
}
END_TEST

START_TEST(slashes_anchor_and_mean_folders)
{
    ck_assert(ignored("/data\n", "data", true));
    ck_assert(!ignored("/data\n", "a/data", true));
    ck_assert(ignored("data\n", "a/data", false));
    ck_assert(ignored("data/\n", "a/data", true));
    ck_assert(!ignored("data/\n", "a/data", false));
    ck_assert(ignored("a/data\n", "a/data", false));
    ck_assert(!ignored("a/data\n", "b/a/data", false));
}
END_TEST

START_TEST(comments_blanks_and_line_ends)
{
    ck_assert(!ignored("# *.py\n\n", "a.py", false));
    ck_assert(ignored("\\#a\n", "#a", false));
    ck_assert(ignored("\\!a\n", "!a", false));
    ck_assert(ignored("*.tmp   \n", "x.tmp", false));
    ck_assert(ignored("*.tmp\r\n*.bak\r\n", "x.bak", false));
    ck_assert(ignored("name\\ \n", "name ", false));
    ck_assert(ignored("last", "last", false));
    ck_assert(!ignored("/\n!\n", "x", true));
}
END_TEST

START_TEST(a_deeper_file_decides_for_its_folder)
{
    struct trk_gitignore *rules = trk_gitignore_new();
    trk_gitignore_add_lines(rules, "", "*.bin\n");
    trk_gitignore_add_lines(rules, "models", "!best.bin\n/old\n");
    ck_assert(trk_gitignore_is_ignored(rules, "a.bin", false));
    ck_assert(trk_gitignore_is_ignored(rules, "models/a.bin", false));
    ck_assert(!trk_gitignore_is_ignored(rules, "models/best.bin", false));
    ck_assert(trk_gitignore_is_ignored(rules, "models2/best.bin", false));
    ck_assert(trk_gitignore_is_ignored(rules, "models/old", true));
    ck_assert(!trk_gitignore_is_ignored(rules, "old", true));
    trk_gitignore_free(rules);
}
END_TEST

START_TEST(some_names_never_come_back)
{
    ck_assert(ignored("!.git\n", ".git", true));
    ck_assert(ignored("!*.pyc\n", "a/x.pyc", false));
    ck_assert(ignored("!*\n", "a/__pycache__", true));
    ck_assert(ignored("", ".gitignore", false));
    ck_assert(ignored("", "data.zip", false));
    ck_assert(!ignored("", ".gitattributes", false));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("client/gitignore");
    TCase *tc = tcase_create("all");
    tcase_add_loop_test(tc, patterns_match_as_gitignore_5_says, 0, 31);
    tcase_add_test(tc, stars_do_not_take_for_ever);
    tcase_add_test(tc, later_lines_win_and_negation_brings_back);
    tcase_add_test(tc, slashes_anchor_and_mean_folders);
    tcase_add_test(tc, comments_blanks_and_line_ends);
    tcase_add_test(tc, a_deeper_file_decides_for_its_folder);
    tcase_add_test(tc, some_names_never_come_back);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
