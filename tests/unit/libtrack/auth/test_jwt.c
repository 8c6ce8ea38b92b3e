#include <check.h>
#include <jansson.h>
#include <jwt.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/auth/jwt.h"
#include "libtrack/auth/service_key.h"
#include "libtrack/base/buf.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/config/profile.h"

static const char key[] = "0123456789abcdef0123456789abcdef";
static const char good_header[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
static const char good_payload[] =
    "{\"seed\":\"s\",\"subject\":\"admin\",\"subject_type\":\"user\",\"scopes\":null}";

static void add_part(struct trk_buf *buf, const void *bytes, size_t len)
{
    char text[16384];
    (void)sodium_bin2base64(text, sizeof(text), bytes, len,
                            sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    (void)trk_buf_adds(buf, text);
}

/* A token with any header and payload, signed by HMAC-SHA256 with `with_key`. */
static char *make_token(const char *header, const char *payload, const char *with_key)
{
    struct trk_buf buf;
    unsigned char mac[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state state;
    trk_buf_init(&buf, 1 << 16);
    add_part(&buf, header, strlen(header));
    (void)trk_buf_addc(&buf, '.');
    add_part(&buf, payload, strlen(payload));
    (void)crypto_auth_hmacsha256_init(&state, (const unsigned char *)with_key, strlen(with_key));
    (void)crypto_auth_hmacsha256_update(&state, (const unsigned char *)buf.data, buf.len);
    (void)crypto_auth_hmacsha256_final(&state, mac);
    (void)trk_buf_addc(&buf, '.');
    add_part(&buf, mac, sizeof(mac));
    return trk_buf_steal(&buf, NULL);
}

static void assert_refused(const char *token, const char *what)
{
    struct trk_token ret = {.subject = "untouched"};
    struct trk_err err = {0};
    ck_assert_msg(trk_jwt_verify(token, key, &ret, &err) == TRK_UNAUTHENTICATED, "accepted: %s",
                  what);
    ck_assert_str_eq(ret.subject, "untouched");
    ck_assert_msg(token[0] == '\0' || strlen(token) < 8 || strstr(err.text, token) == NULL,
                  "the error shows the token: %s", what);
}

START_TEST(both_dev_admin_tokens_are_valid)
{
    static const char *const tokens[] = {TRK_DEV_ADMIN_TOKEN, TRK_DEV_ADMIN_TOKEN_EARLY};
    for (size_t i = 0; i < TRK_COUNT(tokens); i++) {
        struct trk_token token;
        struct trk_err err = {0};
        ck_assert_msg(trk_jwt_verify(tokens[i], TRK_DEV_AUTH_KEY, &token, &err) == 0, "%s",
                      err.text);
        ck_assert_str_eq(token.subject, "admin");
        ck_assert_str_eq(token.seed, TRK_DEV_SEED_ADMIN);
        ck_assert_int_eq(token.type, TRK_SUBJECT_USER);
        ck_assert_uint_eq(token.scope_count, 0);
        ck_assert(!trk_token_has_scope(&token, "full_access"));
        assert_refused(tokens[i], "a token of another key");
    }
}
END_TEST

/* What another program sees in a token, without the library that made it. */
static json_t *read_part(const char **at)
{
    char bytes[TRK_TOKEN_MAX];
    size_t len = 0;
    const char *end = NULL;
    ck_assert_int_eq(sodium_base642bin((unsigned char *)bytes, sizeof(bytes), *at, strlen(*at),
                                       NULL, &len, &end, sodium_base64_VARIANT_URLSAFE_NO_PADDING),
                     0);
    ck_assert_int_eq(*end, '.');
    *at = end + 1;
    json_t *part = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, NULL);
    ck_assert_ptr_nonnull(part);
    return part;
}

static const struct {
    struct trk_token token;
    const char *payload;
} signed_rows[] = {
    {{.seed = TRK_DEV_SEED_ADMIN, .subject = "admin"},
     "{\"seed\":\"" TRK_DEV_SEED_ADMIN
     "\",\"subject\":\"admin\",\"subject_type\":\"user\",\"scopes\":null}"},
    {{.seed = "s", .subject = "alice", .type = TRK_SUBJECT_ESC},
     "{\"seed\":\"s\",\"subject\":\"alice\",\"subject_type\":\"esc\",\"scopes\":null}"},
    {{.seed = "s",
      .subject = "\xc5\xbc\"\\\n",
      .type = TRK_SUBJECT_INTERNAL,
      .scopes = {"read_job", "call_job"},
      .scope_count = 2},
     "{\"seed\":\"s\",\"subject\":\"\\u017c\\\"\\\\\\n\",\"subject_type\":\"internal\",\"scopes\":["
     "\"read_job\",\"call_job\"]}"},
};
START_TEST(signed_token_is_the_originals_for_any_reader)
{
    trk_autofree char *text = NULL;
    ck_assert_int_eq(trk_jwt_sign(&signed_rows[_i].token, key, &text, NULL), 0);
    const char *at = text;
    json_auto_t *header = read_part(&at);
    json_auto_t *wanted_header = json_loads(good_header, 0, NULL);
    ck_assert(json_equal(header, wanted_header));
    json_auto_t *payload = read_part(&at);
    json_auto_t *wanted = json_loads(signed_rows[_i].payload, 0, NULL);
    ck_assert_ptr_nonnull(wanted);
    ck_assert_msg(json_equal(payload, wanted), "%s", text);
    unsigned char mac[crypto_auth_hmacsha256_BYTES];
    char mac_text[64];
    crypto_auth_hmacsha256_state state;
    (void)crypto_auth_hmacsha256_init(&state, (const unsigned char *)key, strlen(key));
    (void)crypto_auth_hmacsha256_update(&state, (const unsigned char *)text,
                                        (size_t)(at - 1 - text));
    (void)crypto_auth_hmacsha256_final(&state, mac);
    (void)sodium_bin2base64(mac_text, sizeof(mac_text), mac, sizeof(mac),
                            sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    ck_assert_str_eq(at, mac_text);
}
END_TEST

START_TEST(signed_token_is_verified)
{
    struct trk_token token = {.subject = "pub \xc5\xbc\"\\",
                              .type = TRK_SUBJECT_INTERNAL,
                              .scopes = {"call_job", "read_job"},
                              .scope_count = 2};
    struct trk_token read;
    trk_autofree char *text = NULL;
    trk_autofree char *again = NULL;
    ck_assert_int_eq(trk_jwt_sign(&token, key, &text, NULL), 0);
    ck_assert_int_eq(trk_jwt_sign(&token, key, &again, NULL), 0);
    ck_assert_str_ne(text, again); /* a fresh seed */
    ck_assert_int_eq(trk_jwt_verify(text, key, &read, NULL), 0);
    ck_assert_str_eq(read.subject, token.subject);
    ck_assert_int_eq(read.type, TRK_SUBJECT_INTERNAL);
    ck_assert_uint_eq(strlen(read.seed), 36);
    ck_assert(trk_token_has_scope(&read, "read_job"));
    ck_assert(!trk_token_has_scope(&read, "deploy_job"));
    ck_assert(!trk_token_has_scope(&read, "full_access"));
}
END_TEST

START_TEST(full_access_has_every_scope)
{
    struct trk_token token = {
        .type = TRK_SUBJECT_INTERNAL, .scopes = {"full_access"}, .scope_count = 1};
    ck_assert(trk_token_has_scope(&token, "delete_job"));
    token.scope_count = 0;
    ck_assert(!trk_token_has_scope(&token, "delete_job"));
}
END_TEST

/* Right in every respect but the algorithm, by the library that would take it. */
START_TEST(another_algorithm_is_refused)
{
    static const jwt_alg_t algs[] = {JWT_ALG_NONE, JWT_ALG_HS384, JWT_ALG_HS512, JWT_ALG_HS256};
    jwt_t *jwt = NULL;
    ck_assert_int_eq(jwt_new(&jwt), 0);
    ck_assert_int_eq(jwt_add_grants_json(jwt, good_payload), 0);
    bool is_signed = algs[_i] != JWT_ALG_NONE;
    ck_assert_int_eq(jwt_set_alg(jwt, algs[_i], is_signed ? (const unsigned char *)key : NULL,
                                 is_signed ? (int)strlen(key) : 0),
                     0);
    char *text = jwt_encode_str(jwt);
    jwt_free(jwt);
    if (algs[_i] == JWT_ALG_HS256) {
        struct trk_token read;
        ck_assert_int_eq(trk_jwt_verify(text, key, &read, NULL), 0);
        ck_assert_str_eq(read.subject, "admin");
    } else {
        assert_refused(text, jwt_alg_str(algs[_i]));
    }
    free(text);
}
END_TEST

static const struct {
    const char *header, *what;
} bad_headers[] = {
    {"{\"alg\":\"none\",\"typ\":\"JWT\"}", "alg none"},
    {"{\"alg\":\"None\",\"typ\":\"JWT\"}", "alg None"},
    {"{\"alg\":\"HS512\",\"typ\":\"JWT\"}", "another HMAC"},
    {"{\"alg\":\"hs256\",\"typ\":\"JWT\"}", "alg in lower case"},
    {"{\"alg\":\"RS256\",\"typ\":\"JWT\"}", "the key as an RSA key"},
    {"{\"alg\":\"ES256\",\"typ\":\"JWT\"}", "the key as an EC key"},
    {"{\"typ\":\"JWT\"}", "no alg"},
    {"{\"alg\":null,\"typ\":\"JWT\"}", "alg null"},
    {"{\"alg\":[\"HS256\"],\"typ\":\"JWT\"}", "a list of algs"},
    {"{\"alg\":\"HS256\",\"alg\":\"none\"}", "alg twice"},
    {"{\"alg\":\"HS256\",\"crit\":[\"exp\"]}", "crit"},
    {"{\"alg\":\"HS256\",\"crit\":null}", "crit null"},
    {"{\"alg\":\"HS256\",\"typ\":\"JWE\"}", "another type"},
    {"[\"HS256\"]", "a list"},
    {"HS256", "no JSON"},
    {"", "nothing"},
};
START_TEST(bad_header_is_refused)
{
    trk_autofree char *token = make_token(bad_headers[_i].header, good_payload, key);
    assert_refused(token, bad_headers[_i].what);
}
END_TEST

static const struct {
    const char *payload, *what;
} bad_payloads[] = {
    {"{\"seed\":\"s\",\"subject\":\"a\",\"subject_type\":\"user\",\"exp\":99999999999}",
     "extra key"},
    {"{\"seed\":\"s\",\"subject\":\"a\",\"subject_type\":\"user\",\"scopes\":null,\"x\":1}",
     "extra key beside scopes"},
    {"{\"subject\":\"a\",\"subject_type\":\"user\",\"scopes\":null}", "no seed"},
    {"{\"seed\":\"s\",\"subject_type\":\"user\",\"scopes\":null}", "no subject"},
    {"{\"seed\":\"s\",\"subject\":\"a\",\"scopes\":null}", "no type"},
    {"{\"seed\":\"s\",\"subject\":\"a\",\"subject_type\":\"root\"}", "unknown type"},
    {"{\"seed\":\"s\",\"subject\":\"\",\"subject_type\":\"user\"}", "empty subject"},
    {"{\"seed\":\"\",\"subject\":\"a\",\"subject_type\":\"user\"}", "empty seed"},
    {"{\"seed\":1,\"subject\":\"a\",\"subject_type\":\"user\"}", "number as seed"},
    {"{\"seed\":\"s\",\"subject\":{},\"subject_type\":\"user\"}", "object as subject"},
    {"{\"seed\":\"s\",\"subject\":\"a\\u0000b\",\"subject_type\":\"user\"}", "NUL in the subject"},
    {"{\"seed\":\"s\",\"subject\":\"a\",\"subject\":\"admin\",\"subject_type\":\"user\"}",
     "subject twice"},
    {"{\"seed\":\"s\",\"subject\":\"a\",\"subject_type\":\"internal\",\"scopes\":\"full_access\"}",
     "scopes as text"},
    {"{\"seed\":\"s\",\"subject\":\"a\",\"subject_type\":\"internal\",\"scopes\":[1]}",
     "number as scope"},
    {"{\"seed\":\"s\",\"subject\":\"a\",\"subject_type\":\"internal\",\"scopes\":[\"1\",\"2\","
     "\"3\","
     "\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]}",
     "too many scopes"},
    {"[]", "a list"},
    {"{", "broken JSON"},
    {"", "nothing"},
};
START_TEST(bad_payload_is_refused)
{
    trk_autofree char *token = make_token(good_header, bad_payloads[_i].payload, key);
    assert_refused(token, bad_payloads[_i].what);
}
END_TEST

START_TEST(old_spellings_are_read)
{
    struct trk_token token;
    trk_autofree char *family = make_token(
        good_header, "{\"seed\":\"s\",\"subject\":\"adder\",\"subject_type\":\"fatman_family\"}",
        key);
    ck_assert_int_eq(trk_jwt_verify(family, key, &token, NULL), 0);
    ck_assert_int_eq(token.type, TRK_SUBJECT_JOB_FAMILY);
    ck_assert_str_eq(trk_subject_type_name(token.type), "job_family");
}
END_TEST

START_TEST(only_internal_tokens_have_scopes)
{
    struct trk_token token;
    trk_autofree char *user = make_token(
        good_header,
        "{\"seed\":\"s\",\"subject\":\"a\",\"subject_type\":\"user\",\"scopes\":"
        "[\"full_access\"]}",
        key);
    ck_assert_int_eq(trk_jwt_verify(user, key, &token, NULL), 0);
    ck_assert(!trk_token_has_scope(&token, "read_job"));
}
END_TEST

START_TEST(changed_tokens_are_refused)
{
    trk_autofree char *token = make_token(good_header, good_payload, key);
    size_t len = strlen(token);
    for (size_t i = 0; i < len; i++) {
        char kept = token[i];
        token[i] = kept == 'A' ? 'B' : 'A';
        assert_refused(token, "one character changed");
        token[i] = kept;
    }
    for (size_t cut = 0; cut < len; cut++) {
        trk_autofree char *shorter = trk_xstrndup(token, cut);
        assert_refused(shorter, "cut");
    }
    struct trk_token read;
    ck_assert_int_eq(trk_jwt_verify(token, key, &read, NULL), 0);
}
END_TEST

START_TEST(odd_shapes_are_refused)
{
    trk_autofree char *token = make_token(good_header, good_payload, key);
    static const char *const odd[] = {
        "", ".", "..", "...", "a.b", " ..", "a.b.c.d", "\xff.\xff.\xff", "eyJhbGciOiJIUzI1NiJ9.."};
    for (size_t i = 0; i < TRK_COUNT(odd); i++) {
        assert_refused(odd[i], odd[i]);
    }
    trk_autofree char *padded = trk_xasprintf("%s=", token);
    assert_refused(padded, "padding");
    trk_autofree char *spaced = trk_xasprintf(" %s", token);
    assert_refused(spaced, "white space before");
    trk_autofree char *dotted = trk_xasprintf("%s.", token);
    assert_refused(dotted, "a fourth part");
    /* a signature's last character holds spare bits: only one spelling is right */
    size_t last = strlen(token) - 1;
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char *other = trk_xstrdup(token);
    other[last] = digits[(size_t)(strchr(digits, token[last]) - digits) ^ 1];
    assert_refused(other, "spare bits in the signature");
    free(other);
}
END_TEST

START_TEST(long_tokens_are_refused)
{
    char subject[5000];
    char payload[6000];
    memset(subject, 'a', sizeof(subject));
    subject[sizeof(subject) - 1] = '\0';
    (void)snprintf(payload, sizeof(payload),
                   "{\"seed\":\"s\",\"subject\":\"%s\",\"subject_type\":\"user\"}", subject);
    trk_autofree char *too_long = make_token(good_header, payload, key);
    assert_refused(too_long, "more than 4 KiB");
    subject[600] = '\0';
    (void)snprintf(payload, sizeof(payload),
                   "{\"seed\":\"s\",\"subject\":\"%s\",\"subject_type\":\"user\"}", subject);
    trk_autofree char *long_subject = make_token(good_header, payload, key);
    assert_refused(long_subject, "subject that does not fit");
}
END_TEST

static void *verify_deep_tokens(void *arg)
{
    char payload[2400];
    for (size_t opened = 1; opened <= 2040; opened += 2039) {
        trk_autofree char *nested = trk_xcalloc(2400, 1);
        memset(nested, '[', opened);
        (void)snprintf(payload, sizeof(payload),
                       "{\"seed\":\"s\",\"subject\":\"a\",\"subject_type\":%s", nested);
        trk_autofree char *deep = make_token(good_header, payload, key);
        assert_refused(deep, "a deep payload");
        trk_autofree char *foreign = make_token(good_header, payload, "somebody else's key");
        assert_refused(foreign, "a deep payload, not signed by us");
        trk_autofree char *header = make_token(payload, good_payload, key);
        assert_refused(header, "a deep header");
    }
    *(bool *)arg = true;
    return NULL;
}
/* The JSON library goes 2048 levels deep if one lets it, which a server's thread has no stack for.
 */
START_TEST(deep_tokens_need_no_stack)
{
    pthread_attr_t attr;
    pthread_t thread;
    static bool done;
    ck_assert_int_eq(pthread_attr_init(&attr), 0);
    ck_assert_int_eq(pthread_attr_setstacksize(&attr, 128 << 10), 0);
    ck_assert_int_eq(pthread_create(&thread, &attr, verify_deep_tokens, &done), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert(done);
    (void)pthread_attr_destroy(&attr);
}
END_TEST

START_TEST(weak_keys_are_refused)
{
    struct trk_token token = {.subject = "a"};
    char *text = NULL;
    static const char *const keys[] = {NULL, "", "short", "31 bytes 31 bytes 31 bytes 31 b"};
    for (size_t i = 0; i < TRK_COUNT(keys); i++) {
        trk_autofree char *signed_with_it = make_token(good_header, good_payload,
                                                       keys[i] != NULL ? keys[i] : "");
        ck_assert_int_lt(trk_jwt_verify(signed_with_it, keys[i], &token, NULL), 0);
        ck_assert_int_lt(trk_jwt_sign(&token, keys[i], &text, NULL), 0);
        ck_assert_ptr_null(text);
    }
}
END_TEST

START_TEST(who_checks_service_tokens_cannot_make_them)
{
    const struct trk_token token = {.subject = "lifecycle",
                                    .type = TRK_SUBJECT_INTERNAL,
                                    .scopes = {"full_access"},
                                    .scope_count = 1};
    struct trk_token read;
    trk_autofree char *public_key = trk_service_key_public(key);
    trk_autofree char *again = trk_service_key_public(key);
    trk_autofree char *other = trk_service_key_public("another key of at least 32 bytes length");
    trk_autofree char *pem = trk_service_key_public_pem(public_key);
    ck_assert_str_eq(public_key, again);
    ck_assert_str_ne(public_key, other);
    trk_autofree char *text = NULL;
    ck_assert_int_eq(trk_jwt_sign_service(&token, key, &text, NULL), 0);
    ck_assert_int_eq(trk_jwt_verify_service(text, public_key, &read, NULL), 0);
    ck_assert_str_eq(read.subject, "lifecycle");
    ck_assert(trk_token_has_scope(&read, "full_access"));
    assert_refused(text, "a service token at lifecycle");
    ck_assert_int_eq(trk_jwt_verify_service(text, other, &read, NULL), TRK_UNAUTHENTICATED);
    char *end = strrchr(text, '.');
    end[5] = end[5] == 'A' ? 'B' : 'A';
    ck_assert_int_eq(trk_jwt_verify_service(text, public_key, &read, NULL), TRK_UNAUTHENTICATED);
    ck_assert_int_eq(trk_jwt_verify_service(text, "no key", &read, NULL), TRK_INTERNAL);
    /* The public key taken for a secret one, under either name of the algorithm. */
    static const char *const headers[] = {"{\"alg\":\"HS256\"}", "{\"alg\":\"ES256\"}",
                                          "{\"alg\":\"none\"}"};
    const char *const secrets[] = {public_key, pem, key};
    for (size_t i = 0; i < TRK_COUNT(headers) * TRK_COUNT(secrets); i++) {
        trk_autofree char *forged = make_token(headers[i % 3], good_payload, secrets[i / 3]);
        ck_assert_int_eq(trk_jwt_verify_service(forged, public_key, &read, NULL),
                         TRK_UNAUTHENTICATED);
    }
}
END_TEST

START_TEST(unusable_subjects_are_not_signed)
{
    struct trk_token token = {.subject = ""};
    char *text = NULL;
    ck_assert_int_eq(trk_jwt_sign(&token, key, &text, NULL), TRK_INVALID);
    (void)snprintf(token.subject, sizeof(token.subject), "\xff");
    ck_assert_int_eq(trk_jwt_sign(&token, key, &text, NULL), TRK_INVALID);
    /* 511 characters that JSON spells with six each: nobody could read the token */
    memset(token.subject, 1, sizeof(token.subject) - 1);
    token.subject[sizeof(token.subject) - 1] = '\0';
    ck_assert_int_eq(trk_jwt_sign(&token, key, &text, NULL), TRK_INVALID);
    ck_assert_ptr_null(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("jwt");
    TCase *tc = tcase_create("jwt");
    tcase_add_test(tc, both_dev_admin_tokens_are_valid);
    tcase_add_loop_test(tc, signed_token_is_the_originals_for_any_reader, 0,
                        TRK_COUNT(signed_rows));
    tcase_add_test(tc, signed_token_is_verified);
    tcase_add_test(tc, full_access_has_every_scope);
    tcase_add_loop_test(tc, another_algorithm_is_refused, 0, 4);
    tcase_add_loop_test(tc, bad_header_is_refused, 0, TRK_COUNT(bad_headers));
    tcase_add_loop_test(tc, bad_payload_is_refused, 0, TRK_COUNT(bad_payloads));
    tcase_add_test(tc, old_spellings_are_read);
    tcase_add_test(tc, only_internal_tokens_have_scopes);
    tcase_add_test(tc, changed_tokens_are_refused);
    tcase_add_test(tc, odd_shapes_are_refused);
    tcase_add_test(tc, long_tokens_are_refused);
    tcase_add_test(tc, deep_tokens_need_no_stack);
    tcase_add_test(tc, weak_keys_are_refused);
    tcase_add_test(tc, who_checks_service_tokens_cannot_make_them);
    tcase_add_test(tc, unusable_subjects_are_not_signed);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
