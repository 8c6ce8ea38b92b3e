#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "pub/decision.h"

static const unsigned char key[PUB_TAG_KEY_SIZE] = "0123456789abcde";
static struct pub_cache cache;

static struct trk_h1_slice slice(const char *s)
{
    return (struct trk_h1_slice){s, strlen(s)};
}

static struct pub_tag tag_of(const char *job, const char *version, const char *token)
{
    struct pub_tag tag;
    pub_tag_make(&tag, key, slice(job), slice(version), slice(token));
    return tag;
}

static void add(const char *job, const char *token)
{
    struct pub_decision *d = pub_decision_new(job, "1.0.0", "running", "ESC x", 0);
    d->tag = tag_of(job, "latest", token);
    pub_cache_add(&cache, d);
    pub_decision_unref(d);
}

static struct pub_decision *find(const char *job, const char *token)
{
    struct pub_tag tag = tag_of(job, "latest", token);
    return pub_cache_find(&cache, &tag);
}

static void setup(void)
{
    pub_cache_init(&cache, 4);
}

static void teardown(void)
{
    pub_cache_fini(&cache);
}

START_TEST(every_part_counts)
{
    static const char *const parts[][3] = {
        {"a", "b", "c"}, {"ab", "", "c"}, {"a", "bc", ""}, {"", "ab", "c"}, {"a", "b", "cc"},
    };
    for (size_t i = 0; i < TRK_COUNT(parts); i++) {
        struct pub_tag x = tag_of(parts[i][0], parts[i][1], parts[i][2]);
        struct pub_tag with_path;
        pub_tag_add_path(&with_path, key, &x, slice(""));
        ck_assert(memcmp(&x, &with_path, sizeof(x)) != 0);
        for (size_t j = 0; j < i; j++) {
            struct pub_tag y = tag_of(parts[j][0], parts[j][1], parts[j][2]);
            ck_assert_msg(memcmp(&x, &y, sizeof(x)) != 0, "%zu and %zu", i, j);
        }
    }
    unsigned char other_key[PUB_TAG_KEY_SIZE] = {0};
    struct pub_tag x = tag_of("a", "b", "c"), y;
    pub_tag_make(&y, other_key, slice("a"), slice("b"), slice("c"));
    ck_assert(memcmp(&x, &y, sizeof(x)) != 0);
}
END_TEST

START_TEST(least_recently_used_goes)
{
    add("a", "t");
    add("b", "t");
    add("c", "t");
    add("d", "t");
    ck_assert_ptr_nonnull(find("a", "t"));
    add("e", "t");
    ck_assert_ptr_null(find("b", "t"));
    ck_assert_ptr_nonnull(find("a", "t"));
    ck_assert_uint_eq(cache.count, 4);
}
END_TEST

START_TEST(equal_tag_is_replaced)
{
    add("a", "t");
    struct pub_decision *old = pub_decision_ref(find("a", "t"));
    add("a", "t");
    ck_assert_uint_eq(cache.count, 1);
    ck_assert_ptr_ne(find("a", "t"), old);
    ck_assert(!old->is_cached);
    ck_assert_str_eq(old->caller, "ESC x"); /* still whole for its user */
    pub_cache_remove(&cache, old);          /* not the new one */
    ck_assert_uint_eq(cache.count, 1);
    pub_decision_unref(old);
}
END_TEST

START_TEST(one_job_leaves)
{
    add("a", "t1");
    add("a", "t2");
    add("b", "t1");
    pub_cache_remove_job(&cache, "a");
    ck_assert_ptr_null(find("a", "t1"));
    ck_assert_ptr_null(find("a", "t2"));
    ck_assert_ptr_nonnull(find("b", "t1"));
    pub_cache_remove_all(&cache);
    ck_assert_ptr_null(find("b", "t1"));
    ck_assert_uint_eq(cache.count, 0);
    add("a", "t1");
    ck_assert_ptr_nonnull(find("a", "t1"));
}
END_TEST

START_TEST(stays_whole_under_churn)
{
    unsigned seed = 1;
    for (int i = 0; i < 20000; i++) {
        char job[8], token[8];
        seed = seed * 1103515245 + 12345;
        (void)snprintf(job, sizeof(job), "j%u", seed >> 16 & 3);
        (void)snprintf(token, sizeof(token), "t%u", seed >> 20 & 3);
        switch (seed >> 24 & 7) {
        case 0:
            pub_cache_remove_job(&cache, job);
            break;
        case 1:
            if (find(job, token) != NULL) {
                pub_cache_remove(&cache, find(job, token));
            }
            ck_assert_ptr_null(find(job, token));
            break;
        default:
            add(job, token);
            ck_assert_str_eq(find(job, token)->job, job);
        }
        size_t count = 0;
        for (struct pub_decision *d = cache.newest; d != NULL; d = d->older) {
            ck_assert(d->older != NULL ? d->older->newer == d : cache.oldest == d);
            ck_assert_uint_eq(d->refs, 1);
            count++;
        }
        ck_assert_uint_eq(count, cache.count);
        ck_assert_uint_le(count, 4);
    }
}
END_TEST

START_TEST(caller_cannot_break_a_header)
{
    struct pub_decision *d = pub_decision_new("a", "1", "running", "User x\r\nEvil: 1", 0);
    ck_assert_str_eq(d->caller, "User x??Evil: 1");
    pub_decision_unref(d);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("decision");
    TCase *tc = tcase_create("decision");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, every_part_counts);
    tcase_add_test(tc, least_recently_used_goes);
    tcase_add_test(tc, equal_tag_is_replaced);
    tcase_add_test(tc, one_job_leaves);
    tcase_add_test(tc, stays_whole_under_churn);
    tcase_add_test(tc, caller_cannot_break_a_header);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
