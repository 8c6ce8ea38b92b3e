/* What a log line makes of bytes that users chose. */
#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

static char line[8192];

/* One line with this value, in `line`. */
static void log_value(const char *value, bool structured)
{
    trk_autoclose int fd = memfd_create("log", MFD_CLOEXEC);
    const struct trk_log_options options = {.structured = structured, .fd = fd};
    trk_log_init(&options);
    trk_log_info("m", "k", value, NULL);
    ssize_t n = pread(fd, line, sizeof(line) - 1, 0);
    ck_assert_int_gt(n, 0);
    line[n] = '\0';
}

static const struct {
    const char *value, *text, *json;
} values[] = {
    {"plain", "k=plain\n", "\"plain\"}\n"},
    {"a\nb\tc\x7f", "k=a\\nb\\x09c\\x7f\n", "\"a\\nb\\u0009c\\u007f\"}\n"},
    {"\x1b[31mred", "k=\\x1b[31mred\n", "\"\\u001b[31mred\"}\n"},
    {"q\"b\\", "k=q\"b\\\n", "\"q\\\"b\\\\\"}\n"},
    {"z\xc3\xbcrich \xe2\x82\xac", "k=z\xc3\xbcrich \xe2\x82\xac\n",
     "\"z\xc3\xbcrich \xe2\x82\xac\"}\n"},
    /* C1: U+009B is ESC [ in one character, U+0085 a line's end, U+00A0 is none */
    {"\xc2\x9b"
     "31m\xc2\x85x\xc2\xa0",
     "k=\\x9b31m\\x85x\xc2\xa0\n", "\"\\u009b31m\\u0085x\xc2\xa0\"}\n"},
    /* the same as bytes of their own, which are no UTF-8 */
    {"\x9b"
     "31m",
     "k=\\x9b31m\n", "\"\\ufffd31m\"}\n"},
    {"cut \xe2\x82", "k=cut \\xe2\\x82\n", "\"cut \\ufffd\\ufffd\"}\n"},
    {"\xc2", "k=\\xc2\n", "\"\\ufffd\"}\n"},
};

START_TEST(user_bytes_are_harmless)
{
    log_value(values[_i].value, false);
    ck_assert_str_eq(strstr(line, "k="), values[_i].text);
    log_value(values[_i].value, true);
    ck_assert_str_eq(strstr(line, "\"k\":") + 4, values[_i].json);
    json_auto_t *json = NULL;
    ck_assert_int_eq(trk_json_parse(line, strlen(line), &json, NULL), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("log");
    TCase *tc = tcase_create("log");
    tcase_add_loop_test(tc, user_bytes_are_harmless, 0, TRK_COUNT(values));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
