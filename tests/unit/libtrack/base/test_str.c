#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

START_TEST(prefix_and_suffix)
{
    ck_assert(trk_str_has_prefix("abc", "ab"));
    ck_assert(trk_str_has_prefix("abc", ""));
    ck_assert(!trk_str_has_prefix("ab", "abc"));
    ck_assert(trk_str_has_suffix("abc", "bc"));
    ck_assert(!trk_str_has_suffix("bc", "abc"));
    ck_assert(trk_str_is_empty(NULL) && trk_str_is_empty("") && !trk_str_is_empty(" "));
}
END_TEST

static const struct {
    const char *text;
    int64_t min, max;
    bool is_good;
    int64_t value;
} integers[] = {
    {"0", 0, 10, true, 0},
    {"10", 0, 10, true, 10},
    {"-1", -1, 10, true, -1},
    {"007", 0, 10, true, 7},
    {"9223372036854775807", INT64_MIN, INT64_MAX, true, INT64_MAX},
    {"-9223372036854775808", INT64_MIN, INT64_MAX, true, INT64_MIN},
    {"9223372036854775808", INT64_MIN, INT64_MAX, false, 0},
    {"-9223372036854775809", INT64_MIN, INT64_MAX, false, 0},
    {"99999999999999999999999999", INT64_MIN, INT64_MAX, false, 0},
    {"11", 0, 10, false, 0},
    {"-1", 0, 10, false, 0},
    {"", 0, 10, false, 0},
    {"-", -1, 10, false, 0},
    {"+1", 0, 10, false, 0},
    {" 1", 0, 10, false, 0},
    {"1 ", 0, 10, false, 0},
    {"1.0", 0, 10, false, 0},
    {"0x1", 0, 10, false, 0},
};
START_TEST(integer_is_parsed_or_refused)
{
    int64_t value = 99;
    struct trk_err err = {0};
    int rc = trk_parse_int64(integers[_i].text, integers[_i].min, integers[_i].max, &value, &err);
    ck_assert_msg((rc == 0) == integers[_i].is_good, "'%s': %s", integers[_i].text, err.text);
    ck_assert_msg(value == (integers[_i].is_good ? integers[_i].value : 99), "'%s' gave %lld",
                  integers[_i].text, (long long)value);
    if (rc < 0) {
        ck_assert_int_eq(rc, TRK_INVALID);
    }
}
END_TEST

START_TEST(booleans)
{
    static const char *const yes[] = {"true", "TRUE", "Yes", "on", "1"};
    static const char *const no[] = {"false", "No", "OFF", "0"};
    static const char *const bad[] = {"", "y", "2", "truee", " true"};
    bool value;
    for (size_t i = 0; i < TRK_COUNT(yes); i++) {
        value = false;
        ck_assert_msg(trk_parse_bool(yes[i], &value, NULL) == 0 && value, "%s", yes[i]);
    }
    for (size_t i = 0; i < TRK_COUNT(no); i++) {
        value = true;
        ck_assert_msg(trk_parse_bool(no[i], &value, NULL) == 0 && !value, "%s", no[i]);
    }
    for (size_t i = 0; i < TRK_COUNT(bad); i++) {
        ck_assert_msg(trk_parse_bool(bad[i], &value, NULL) == TRK_INVALID, "'%s'", bad[i]);
    }
}
END_TEST

START_TEST(url_is_encoded)
{
    struct trk_buf buf;
    trk_buf_init(&buf, 200);
    ck_assert_int_eq(trk_url_encode(&buf, "a b/c?\xc3\xa9%~-._", 13, NULL), 0);
    ck_assert_str_eq(buf.data, "a%20b%2Fc%3F%C3%A9%25~-._");
    trk_buf_reset(&buf);
    ck_assert_int_eq(trk_url_encode(&buf, "a/b\0c", 5, "/"), 0);
    ck_assert_str_eq(buf.data, "a/b%00c");
    trk_buf_fini(&buf);
}
END_TEST

START_TEST(url_is_decoded)
{
    trk_autofree char *out = NULL;
    ck_assert_int_eq(trk_url_decode("a%20b%2fc+", 10, &out, NULL), 0);
    ck_assert_str_eq(out, "a b/c+");
}
END_TEST

START_TEST(broken_url_escape_is_refused)
{
    static const char *const bad[] = {"%", "%4", "a%4", "%zz", "%4g", "%%41", "%00", "%0"};
    for (size_t i = 0; i < TRK_COUNT(bad); i++) {
        char *out = NULL;
        ck_assert_msg(trk_url_decode(bad[i], strlen(bad[i]), &out, NULL) == TRK_INVALID, "%s",
                      bad[i]);
        ck_assert_ptr_null(out);
    }
}
END_TEST

static const struct {
    const char *plain, *encoded;
} base64[] = {
    {"", ""},
    {"f", "Zg=="},
    {"fo", "Zm8="},
    {"foo", "Zm9v"},
    {"foob", "Zm9vYg=="},
    {"fooba", "Zm9vYmE="},
    {"foobar", "Zm9vYmFy"},
    {"\xff\xfe\xfd\xfb", "//79+w=="},
};
START_TEST(base64_both_ways)
{
    struct trk_buf buf;
    trk_autofree void *out = NULL;
    size_t len;
    trk_buf_init(&buf, 100);
    ck_assert_int_eq(trk_base64_encode(&buf, base64[_i].plain, strlen(base64[_i].plain)), 0);
    ck_assert_str_eq(buf.data, base64[_i].encoded);
    ck_assert_int_eq(trk_base64_decode(buf.data, buf.len, &out, &len, NULL), 0);
    ck_assert_uint_eq(len, strlen(base64[_i].plain));
    ck_assert_str_eq(out, base64[_i].plain);
    trk_buf_fini(&buf);
}
END_TEST

START_TEST(base64_refuses_what_is_not)
{
    static const char *const bad[] = {"Z",        "Zg",   "Zg=",     "Zh==",  "Zm9=",
                                      "====",     "Z===", "Zm9v\n",  "Zm 9v", "Zm9_",
                                      "Zg==Zg==", "Z=g=", "Zm9v===="};
    for (size_t i = 0; i < TRK_COUNT(bad); i++) {
        void *out = NULL;
        size_t len;
        ck_assert_msg(trk_base64_decode(bad[i], strlen(bad[i]), &out, &len, NULL) == TRK_INVALID,
                      "'%s' was accepted", bad[i]);
        ck_assert_ptr_null(out);
    }
}
END_TEST

START_TEST(base64_in_pieces)
{
    static const char text[] = "Zm9vYmFyZm9vYg==";
    for (size_t piece = 1; piece < sizeof(text); piece++) {
        struct trk_base64 decoder = {0};
        char out[sizeof(text)];
        size_t len = 0;
        for (size_t at = 0; at < strlen(text); at += piece) {
            size_t n, left = strlen(text) - at;
            ck_assert_int_ne(at > 0 && at % 4 != 0 ? trk_base64_end(&decoder, NULL) : -1, 0);
            ck_assert_int_eq(trk_base64_feed(&decoder, text + at, left < piece ? left : piece,
                                             out + len, &n, NULL),
                             0);
            len += n;
        }
        ck_assert_int_eq(trk_base64_end(&decoder, NULL), 0);
        ck_assert_uint_eq(len, 10);
        ck_assert_mem_eq(out, "foobarfoob", 10);
    }
}
END_TEST

START_TEST(base64_keeps_the_cap)
{
    struct trk_buf buf;
    trk_buf_init(&buf, 7);
    ck_assert_int_eq(trk_base64_encode(&buf, "foob", 4), TRK_TOO_LARGE);
    ck_assert_uint_eq(buf.len, 0);
    trk_buf_fini(&buf);
}
END_TEST

START_TEST(hex)
{
    char out[9];
    trk_hex("\x00\x7f\xa5\xff", 4, out);
    ck_assert_str_eq(out, "007fa5ff");
}
END_TEST

static const struct {
    const char *bytes;
    bool is_valid;
} utf8[] = {
    {"", true},
    {"abc", true},
    {"\xc3\xa9", true},
    {"\xe2\x82\xac", true},
    {"\xf0\x9f\x98\x80", true},
    {"\xf4\x8f\xbf\xbf", true},
    {"\xed\x9f\xbf", true},
    {"\xc0\xaf", false},         /* overlong */
    {"\xe0\x80\xaf", false},     /* overlong */
    {"\xf0\x80\x80\xaf", false}, /* overlong */
    {"\xed\xa0\x80", false},     /* surrogate */
    {"\xf4\x90\x80\x80", false}, /* past U+10FFFF */
    {"\xf8\x88\x80\x80\x80", false},
    {"\x80", false},
    {"\xc3", false},
    {"\xe2\x82", false},
    {"\xc3\x28", false},
    {"\xff", false},
};
START_TEST(utf8_is_checked)
{
    ck_assert_msg(trk_utf8_is_valid(utf8[_i].bytes, strlen(utf8[_i].bytes)) == utf8[_i].is_valid,
                  "row %d", _i);
    char text[32];
    (void)snprintf(text, sizeof(text), "a%s\xc3\xa9%s", utf8[_i].bytes, utf8[_i].bytes);
    size_t len = strlen(text);
    trk_utf8_repair(text, len);
    ck_assert_msg(trk_utf8_is_valid(text, strlen(text)), "row %d", _i);
    ck_assert_uint_eq(strlen(text), len);
    ck_assert_msg((strchr(text, '?') == NULL) == utf8[_i].is_valid, "row %d: %s", _i, text);
    ck_assert_ptr_nonnull(strstr(text, "\xc3\xa9"));
}
END_TEST

START_TEST(what_is_no_text_is_replaced)
{
    char bytes[] = "a\0\xe2\x82\xac\xe2\x82";
    trk_utf8_repair(bytes, sizeof(bytes) - 1);
    ck_assert_str_eq(bytes, "a?\xe2\x82\xac??");
}
END_TEST

static const struct {
    const char *text, *stripped;
} ansi[] = {
    {"plain", "plain"},
    {"\x1b[1;31mred\x1b[0m!", "red!"},
    {"\x1b]0;title\a text", " text"},
    {"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"},
    {"a\x1b[2Kb\x1b(Bc\x1b"
     "7d",
     "abcd"},
    {"cut\x1b", "cut"},
    {"cut\x1b[12", "cut"},
    {"\x1b]never ends\nnext line", "\nnext line"},
    {"\x1b[31\nnext", "\nnext"},
    {"\x1b\x1b[1mx", "x"},
    {"a\xc2\x9b"
     "31mb\xc2\x85"
     "c\xc2\xa0",
     "a31mbc\xc2\xa0"},
};
START_TEST(escape_sequences_go)
{
    trk_autofree char *copy = trk_xstrdup(ansi[_i].text);
    trk_strip_ansi(copy);
    ck_assert_str_eq(copy, ansi[_i].stripped);
}
END_TEST

static const struct {
    const char *text, *nearest;
} spellings[] = {
    {"nmae", "name"},
    {"Name", "name"},
    {"owner-email", "owner_email"},
    {"ownerEmail", "owner_email"},
    {"owner", "owner_email"},
    {"requirements", "requirements_path"},
    {"jobtyp", "jobtype"},
    {"zzz", NULL},
    {"", NULL},
    {"gitt", "git"},
    {"x", NULL},
    {"completely_different", NULL},
};
START_TEST(nearest_name_is_found)
{
    static const char *const names[] = {"name", "owner_email", "git", "jobtype",
                                        "requirements_path"};
    const char *found = trk_str_nearest(spellings[_i].text, names, TRK_COUNT(names));
    ck_assert_pstr_eq(found, spellings[_i].nearest);
}
END_TEST

START_TEST(sizes_are_said_in_units)
{
    ck_assert_str_eq(trk_size_text(UINT64_C(96) << 20).text, "96 MiB");
    ck_assert_str_eq(trk_size_text(262144).text, "256 KiB");
    ck_assert_str_eq(trk_size_text(262145).text, "262145 bytes");
    ck_assert_str_eq(trk_size_text(0).text, "0 bytes");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("str");
    TCase *tc = tcase_create("str");
    tcase_add_test(tc, prefix_and_suffix);
    tcase_add_loop_test(tc, integer_is_parsed_or_refused, 0, TRK_COUNT(integers));
    tcase_add_test(tc, booleans);
    tcase_add_test(tc, url_is_encoded);
    tcase_add_test(tc, url_is_decoded);
    tcase_add_test(tc, broken_url_escape_is_refused);
    tcase_add_loop_test(tc, base64_both_ways, 0, TRK_COUNT(base64));
    tcase_add_test(tc, base64_refuses_what_is_not);
    tcase_add_test(tc, base64_keeps_the_cap);
    tcase_add_test(tc, base64_in_pieces);
    tcase_add_test(tc, hex);
    tcase_add_loop_test(tc, utf8_is_checked, 0, TRK_COUNT(utf8));
    tcase_add_test(tc, what_is_no_text_is_replaced);
    tcase_add_loop_test(tc, escape_sequences_go, 0, TRK_COUNT(ansi));
    tcase_add_loop_test(tc, nearest_name_is_found, 0, TRK_COUNT(spellings));
    tcase_add_test(tc, sizes_are_said_in_units);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
