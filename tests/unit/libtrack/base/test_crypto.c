#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

START_TEST(sha256_of_known_texts)
{
    char digest[TRK_DIGEST_SIZE];
    trk_digest("abc", 3, digest);
    ck_assert_str_eq(digest,
                     "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    trk_digest("", 0, digest);
    ck_assert_str_eq(digest,
                     "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}
END_TEST

START_TEST(sha256_in_pieces)
{
    unsigned char whole[TRK_SHA256_SIZE];
    unsigned char pieces[TRK_SHA256_SIZE];
    struct trk_sha256_ctx *ctx = trk_sha256_new();
    trk_sha256("hello world", 11, whole);
    for (int round = 0; round < 2; round++) { /* the context is fresh again afterwards */
        trk_sha256_update(ctx, "hello", 5);
        trk_sha256_update(ctx, "", 0);
        trk_sha256_update(ctx, " world", 6);
        trk_sha256_final(ctx, pieces);
        ck_assert_mem_eq(whole, pieces, sizeof(whole));
    }
    trk_sha256_free(ctx);
    trk_sha256_free(NULL);
}
END_TEST

START_TEST(digest_texts)
{
    char digest[TRK_DIGEST_SIZE];
    trk_digest("x", 1, digest);
    ck_assert(trk_digest_is_valid(digest));
    digest[10] = 'A';
    ck_assert(!trk_digest_is_valid(digest));
    ck_assert(!trk_digest_is_valid("sha256:abc"));
    ck_assert(!trk_digest_is_valid(""));
    ck_assert(
        !trk_digest_is_valid("sha512:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f2"
                             "0015ad"));
    ck_assert(
        !trk_digest_is_valid("sha256:../../../../../../../../../../../../../../../../../../../"
                             "../etc"));
}
END_TEST

START_TEST(password_hash_is_verified)
{
    char hash[TRK_PASSWORD_HASH_SIZE];
    char again[TRK_PASSWORD_HASH_SIZE];
    bool needs_rehash = true;
    ck_assert_int_eq(trk_password_hash("s3cret", hash, NULL), 0);
    ck_assert_int_eq(trk_password_hash("s3cret", again, NULL), 0);
    ck_assert(trk_str_has_prefix(hash, "$argon2id$"));
    ck_assert_str_ne(hash, again); /* salted */
    ck_assert(trk_password_verify("s3cret", hash, &needs_rehash));
    ck_assert(!needs_rehash);
    ck_assert(!trk_password_verify("s3creT", hash, NULL));
    ck_assert(!trk_password_verify("", hash, NULL));
    ck_assert_int_eq(trk_password_hash("", hash, NULL), TRK_INVALID);
}
END_TEST

START_TEST(django_hash_is_verified_and_replaced)
{
    /* made by django.contrib.auth.hashers' algorithm with Python's hashlib */
    static const char hash[] =
        "pbkdf2_sha256$1000$seasalt$R1/GfWtwog1T8Ev9VndgDjzkiRzbFr8JpmJtL9cMmQU=";
    bool needs_rehash = false;
    ck_assert(trk_password_verify("letmein", hash, &needs_rehash));
    ck_assert(needs_rehash);
    ck_assert(!trk_password_verify("letmeim", hash, NULL));
}
END_TEST

START_TEST(broken_hashes_match_nothing)
{
    static const char *const hashes[] = {
        "",
        "plain",
        "$argon2id$",
        "$argon2id$v=19$m=65536,t=2,p=1$",
        "pbkdf2_sha256$",
        "pbkdf2_sha256$1000$salt",
        "pbkdf2_sha256$0$salt$AAAA",
        "pbkdf2_sha256$99999999999$salt$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "pbkdf2_sha256$1000$salt$AAAA",
        "!unusable",
        "md5$a$b",
        NULL, /* no such user */
    };
    for (size_t i = 0; i < TRK_COUNT(hashes); i++) {
        ck_assert_msg(!trk_password_verify("password", hashes[i], NULL), "hash %zu", i);
        ck_assert_msg(!trk_password_verify("", hashes[i], NULL), "hash %zu", i);
    }
}
END_TEST

static void *hash_one(void *arg)
{
    char hash[TRK_PASSWORD_HASH_SIZE];
    *(bool *)arg = trk_password_hash("x", hash, NULL) == 0 && trk_password_verify("x", hash, NULL);
    return NULL;
}

START_TEST(many_threads_hash_at_once)
{
    pthread_t threads[6];
    bool results[6] = {0};
    for (size_t i = 0; i < TRK_COUNT(threads); i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hash_one, &results[i]), 0);
    }
    for (size_t i = 0; i < TRK_COUNT(threads); i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        ck_assert(results[i]);
    }
}
END_TEST

START_TEST(secrets_compare)
{
    ck_assert(trk_secret_equal("abc", "abc"));
    ck_assert(trk_secret_equal("", ""));
    ck_assert(!trk_secret_equal("abc", "abd"));
    ck_assert(!trk_secret_equal("abc", "abcd"));
    ck_assert(!trk_secret_equal(NULL, NULL));
    ck_assert(!trk_secret_equal("", NULL));
}
END_TEST

START_TEST(random_texts_differ)
{
    char a[201];
    char b[201];
    trk_random_hex(a, 100);
    trk_random_hex(b, 100);
    ck_assert_uint_eq(strlen(a), 200);
    ck_assert_uint_eq(strspn(a, "0123456789abcdef"), 200);
    ck_assert_str_ne(a, b);
}
END_TEST

static const char secret_key[] = "a secret key with more than 32 bytes";

START_TEST(sealed_secret_is_read_back)
{
    trk_autofree void *sealed = NULL;
    trk_autofree void *again = NULL;
    trk_autofree void *plain = NULL;
    size_t sealed_len, again_len, plain_len;
    ck_assert_int_eq(trk_seal(secret_key, "row 1", "value", 5, &sealed, &sealed_len, NULL), 0);
    ck_assert_int_eq(trk_seal(secret_key, "row 1", "value", 5, &again, &again_len, NULL), 0);
    ck_assert_uint_eq(sealed_len, again_len);
    ck_assert_mem_ne(sealed, again, sealed_len); /* a fresh nonce each time */
    ck_assert_ptr_null(memmem(sealed, sealed_len, "value", 5));
    ck_assert_int_eq(trk_unseal(secret_key, "row 1", sealed, sealed_len, &plain, &plain_len, NULL),
                     0);
    ck_assert_uint_eq(plain_len, 5);
    ck_assert_str_eq(plain, "value");
}
END_TEST

START_TEST(sealed_secret_is_bound)
{
    trk_autofree unsigned char *sealed = NULL;
    void *plain = NULL;
    size_t len, plain_len;
    void *bytes;
    ck_assert_int_eq(trk_seal(secret_key, "row 1", "value", 5, &bytes, &len, NULL), 0);
    sealed = bytes;
    ck_assert_int_eq(trk_unseal(secret_key, "row 2", sealed, len, &plain, &plain_len, NULL),
                     TRK_INVALID);
    ck_assert_int_eq(trk_unseal("another key that is long enough too", "row 1", sealed, len, &plain,
                                &plain_len, NULL),
                     TRK_INVALID);
    for (size_t i = 0; i < len; i++) {
        sealed[i] ^= 1;
        ck_assert_msg(trk_unseal(secret_key, "row 1", sealed, len, &plain, &plain_len, NULL) ==
                          TRK_INVALID,
                      "changed byte %zu was not seen", i);
        sealed[i] ^= 1;
    }
    for (size_t cut = 0; cut < len; cut++) {
        ck_assert_int_eq(trk_unseal(secret_key, "row 1", sealed, cut, &plain, &plain_len, NULL),
                         TRK_INVALID);
    }
    ck_assert_int_eq(trk_seal("", "row 1", "value", 5, &bytes, &len, NULL), TRK_INVALID);
    ck_assert_ptr_null(plain);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("crypto");
    TCase *tc = tcase_create("crypto");
    tcase_add_test(tc, sha256_of_known_texts);
    tcase_add_test(tc, sha256_in_pieces);
    tcase_add_test(tc, digest_texts);
    tcase_add_test(tc, password_hash_is_verified);
    tcase_add_test(tc, django_hash_is_verified_and_replaced);
    tcase_add_test(tc, broken_hashes_match_nothing);
    tcase_add_test(tc, many_threads_hash_at_once);
    tcase_add_test(tc, secrets_compare);
    tcase_add_test(tc, random_texts_differ);
    tcase_add_test(tc, sealed_secret_is_read_back);
    tcase_add_test(tc, sealed_secret_is_bound);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
