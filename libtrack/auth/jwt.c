#include "libtrack/auth/jwt.h"

#include <dlfcn.h>
#include <jwt.h>
#include <pthread.h>
#include <sodium.h>
#include <string.h>

#include "libtrack/auth/service_key.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"

#define KEY_BYTES_MIN 32
#define BASE64URL     sodium_base64_VARIANT_URLSAFE_NO_PADDING

/* libjwt, loaded with the first token that is signed or verified: pub and the client hold tokens,
 * but read none, and libjwt brings OpenSSL with it. */
#define JWT_FUNCTIONS(X)                                                                           \
    X(jwt_new)                                                                                     \
    X(jwt_free)                                                                                    \
    X(jwt_decode) X(jwt_get_alg) X(jwt_set_alg) X(jwt_add_grants_json) X(jwt_encode_str)
static struct {
#define DECLARE(name) __typeof__(name) *name;
    JWT_FUNCTIONS(DECLARE)
#undef DECLARE
    char fault[256]; /* "" when loaded */
} lib;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void)
{
    void *handle = dlopen("libjwt.so.0", RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        (void)snprintf(lib.fault, sizeof(lib.fault), "%s", dlerror());
        return;
    }
#define RESOLVE(name)                                                                              \
    *(void **)&lib.name = dlsym(handle, #name);                                                    \
    if (lib.name == NULL) {                                                                        \
        (void)snprintf(lib.fault, sizeof(lib.fault), "libjwt.so.0 has no " #name);                 \
        return;                                                                                    \
    }
    JWT_FUNCTIONS(RESOLVE)
#undef RESOLVE
}

static const char *const type_names[] = {
    [TRK_SUBJECT_USER] = "user",
    [TRK_SUBJECT_ESC] = "esc",
    [TRK_SUBJECT_JOB_FAMILY] = "job_family",
    [TRK_SUBJECT_INTERNAL] = "internal",
};

const char *trk_subject_type_name(enum trk_subject_type type)
{
    return type_names[type];
}

bool trk_token_has_scope(const struct trk_token *token, const char *scope)
{
    for (unsigned i = 0; i < token->scope_count; i++) {
        if (strcmp(token->scopes[i], scope) == 0 || strcmp(token->scopes[i], "full_access") == 0) {
            return true;
        }
    }
    return false;
}

static int invalid(struct trk_err *err, const char *why)
{
    return trk_err_set(err, TRK_UNAUTHENTICATED, "the token is not valid: %s", why);
}

/* Strict base64url (RFC 7515 §2: no padding, no stray bits); false for anything else. */
static bool decode(const char *text, size_t len, unsigned char *out, size_t size, size_t *ret_len)
{
    const char *end = NULL;
    return sodium_base642bin(out, size, text, len, NULL, ret_len, &end, BASE64URL) == 0 &&
           end == text + len;
}

/* One algorithm and its key, in the form that libjwt takes. */
struct key {
    jwt_alg_t algorithm;
    const char *name, *text;
};

static int check_header(const char *text, size_t len, const struct key *key, struct trk_err *err)
{
    char bytes[TRK_TOKEN_MAX];
    size_t bytes_len;
    json_auto_t *header = NULL;
    if (!decode(text, len, (unsigned char *)bytes, sizeof(bytes), &bytes_len) ||
        trk_json_parse(bytes, bytes_len, &header, NULL) < 0 || !json_is_object(header)) {
        return invalid(err, "its header cannot be read");
    }
    if (strcmp(trk_json_string_or(header, "alg", ""), key->name) != 0) {
        return trk_err_set(err, TRK_UNAUTHENTICATED,
                           "the token is not valid: its algorithm is not %s", key->name);
    }
    const json_t *type = json_object_get(header, "typ");
    if (type != NULL && (!json_is_string(type) || strcmp(json_string_value(type), "JWT") != 0)) {
        return invalid(err, "its type is not JWT");
    }
    if (json_object_get(header, "crit") != NULL) {
        return invalid(err, "it demands extensions that are not known here");
    }
    return 0;
}

static int copy_text(const json_t *value, char *out, size_t size)
{
    const char *text = json_string_value(value);
    if (text == NULL || text[0] == '\0' || strlen(text) >= size) {
        return -1;
    }
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static int read_type(const json_t *value, enum trk_subject_type *ret)
{
    const char *text = json_string_value(value);
    if (text != NULL && strcmp(text, "fatman_family") == 0) {
        text = type_names[TRK_SUBJECT_JOB_FAMILY];
    }
    for (size_t i = 0; text != NULL && i < TRK_COUNT(type_names); i++) {
        if (strcmp(text, type_names[i]) == 0) {
            *ret = (enum trk_subject_type)i;
            return 0;
        }
    }
    return -1;
}

static int read_scopes(const json_t *value, struct trk_token *token)
{
    if (value == NULL || json_is_null(value)) {
        return 0;
    }
    size_t count = json_array_size(value);
    if (!json_is_array(value) || count > TRK_COUNT(token->scopes)) {
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        if (copy_text(json_array_get(value, i), token->scopes[i], sizeof(token->scopes[i])) < 0) {
            return -1;
        }
    }
    token->scope_count = (unsigned)count;
    return 0;
}

static int read_payload(const char *text, size_t len, struct trk_token *token, struct trk_err *err)
{
    char bytes[TRK_TOKEN_MAX];
    size_t bytes_len;
    json_auto_t *payload = NULL;
    if (!decode(text, len, (unsigned char *)bytes, sizeof(bytes), &bytes_len) ||
        trk_json_parse(bytes, bytes_len, &payload, NULL) < 0 || !json_is_object(payload)) {
        return invalid(err, "its payload cannot be read");
    }
    const json_t *scopes = json_object_get(payload, "scopes");
    if (json_object_size(payload) != (size_t)(scopes != NULL ? 4 : 3)) {
        return invalid(err, "its payload must have seed, subject, subject_type and scopes only");
    }
    if (copy_text(json_object_get(payload, "seed"), token->seed, sizeof(token->seed)) < 0) {
        return invalid(err, "its seed is missing or too long");
    }
    if (copy_text(json_object_get(payload, "subject"), token->subject, sizeof(token->subject)) <
        0) {
        return invalid(err, "its subject is missing or too long");
    }
    if (read_type(json_object_get(payload, "subject_type"), &token->type) < 0) {
        return invalid(err, "its subject_type is not known");
    }
    if (read_scopes(scopes, token) < 0) {
        return invalid(err, "its scopes cannot be read");
    }
    if (token->type != TRK_SUBJECT_INTERNAL) {
        memset(token->scopes, 0, sizeof(token->scopes)); /* what others may do is in the database */
        token->scope_count = 0;
    }
    return 0;
}

static int load_library(struct trk_err *err)
{
    (void)pthread_once(&once, load);
    return lib.fault[0] == '\0'
               ? 0
               : trk_err_set(
                     err, TRK_INTERNAL,
                     "libjwt cannot be loaded: %s; install it with: apt-get install libjwt0",
                     lib.fault);
}

/* What is signed with AUTH_KEY needs one that is worth its name. */
static int check_auth_key(const char *key, struct trk_err *err)
{
    return key != NULL && strlen(key) >= KEY_BYTES_MIN
               ? 0
               : trk_err_set(err, TRK_INTERNAL, "AUTH_KEY is missing or shorter than %d bytes",
                             KEY_BYTES_MIN);
}

/* HS256: libjwt compares the signature's text, in constant time; a NULL or empty key would skip
 * that. */
static bool signature_matches(const char *text, const struct key *key)
{
    jwt_t *jwt = NULL;
    bool matches = lib.jwt_decode(&jwt, text, (const unsigned char *)key->text,
                                  (int)strlen(key->text)) == 0 &&
                   lib.jwt_get_alg(jwt) == key->algorithm;
    if (jwt != NULL) {
        lib.jwt_free(jwt);
    }
    return matches;
}

static int verify(const char *text, const struct key *key, struct trk_token *ret,
                  struct trk_err *err)
{
    int rc = load_library(err);
    if (rc < 0) {
        return rc;
    }
    size_t len = strnlen(text, TRK_TOKEN_MAX + 1);
    if (len > TRK_TOKEN_MAX) {
        return invalid(err, "it is longer than 4096 characters");
    }
    const char *payload = memchr(text, '.', len);
    const char *signature = payload != NULL
                                ? memchr(payload + 1, '.', len - (size_t)(payload + 1 - text))
                                : NULL;
    if (signature == NULL || strchr(signature + 1, '.') != NULL) {
        return invalid(err, "it must have three parts, separated by dots");
    }
    rc = check_header(text, (size_t)(payload - text), key, err);
    if (rc < 0) {
        return rc;
    }
    /* libjwt parses the payload before it looks at the signature, as deep as it goes: ours, with
     * limits, comes first. Nothing of it is believed before the signature is. */
    struct trk_token token = {0};
    rc = read_payload(payload + 1, (size_t)(signature - payload - 1), &token, err);
    if (rc < 0) {
        return rc;
    }
    if (!signature_matches(text, key)) {
        return invalid(err, "its signature does not match");
    }
    *ret = token;
    return 0;
}

int trk_jwt_verify(const char *text, const char *auth_key, struct trk_token *ret,
                   struct trk_err *err)
{
    const struct key key = {JWT_ALG_HS256, "HS256", auth_key};
    int rc = check_auth_key(auth_key, err);
    return rc < 0 ? rc : verify(text, &key, ret, err);
}

int trk_jwt_verify_service(const char *text, const char *public_key, struct trk_token *ret,
                           struct trk_err *err)
{
    trk_autofree char *pem = trk_service_key_public_pem(public_key);
    const struct key key = {JWT_ALG_ES256, "ES256", pem};
    return pem != NULL ? verify(text, &key, ret, err)
                       : trk_err_set(err, TRK_INTERNAL, "the public key cannot be read");
}

static char *payload_text(const struct trk_token *token)
{
    char seed[TRK_UUID_SIZE];
    trk_uuid4(seed);
    json_auto_t *payload = json_object();
    json_object_set_new(payload, "seed", json_string(token->seed[0] != '\0' ? token->seed : seed));
    json_object_set_new(payload, "subject", json_string(token->subject));
    json_object_set_new(payload, "subject_type", json_string(type_names[token->type]));
    json_t *scopes = json_null();
    if (token->type == TRK_SUBJECT_INTERNAL) {
        scopes = json_array();
        for (unsigned i = 0; i < token->scope_count; i++) {
            json_array_append_new(scopes, json_string(token->scopes[i]));
        }
    }
    json_object_set_new(payload, "scopes", scopes);
    return trk_json_text(payload);
}

/* NULL when libjwt refuses. Owned. */
static char *encode(const char *payload, const struct key *key)
{
    jwt_t *jwt = NULL;
    char *text = NULL;
    if (lib.jwt_new(&jwt) != 0) {
        return NULL;
    }
    if (lib.jwt_add_grants_json(jwt, payload) == 0 &&
        lib.jwt_set_alg(jwt, key->algorithm, (const unsigned char *)key->text,
                        (int)strlen(key->text)) == 0) {
        text = lib.jwt_encode_str(jwt);
    }
    lib.jwt_free(jwt);
    return text;
}

static int sign(const struct trk_token *token, const struct key *key, char **ret,
                struct trk_err *err)
{
    int rc = load_library(err);
    if (rc < 0) {
        return rc;
    }
    if (token->subject[0] == '\0' || !trk_utf8_is_valid(token->subject, strlen(token->subject))) {
        return trk_err_set(err, TRK_INVALID, "a token's subject must be a text in UTF-8");
    }
    trk_autofree char *payload = payload_text(token);
    trk_autofree char *text = encode(payload, key);
    if (text == NULL) {
        return trk_err_set(err, TRK_INTERNAL, "libjwt could not sign a token");
    }
    if (strlen(text) > TRK_TOKEN_MAX) {
        return trk_err_set(err, TRK_INVALID, "the token would be longer than %d characters",
                           TRK_TOKEN_MAX);
    }
    *ret = TRK_STEAL(text);
    return 0;
}

int trk_jwt_sign(const struct trk_token *token, const char *auth_key, char **ret,
                 struct trk_err *err)
{
    const struct key key = {JWT_ALG_HS256, "HS256", auth_key};
    int rc = check_auth_key(auth_key, err);
    return rc < 0 ? rc : sign(token, &key, ret, err);
}

int trk_jwt_sign_service(const struct trk_token *token, const char *auth_key, char **ret,
                         struct trk_err *err)
{
    int rc = check_auth_key(auth_key, err);
    if (rc < 0) {
        return rc;
    }
    trk_autofree char *pem = trk_service_key_private_pem(auth_key);
    const struct key key = {JWT_ALG_ES256, "ES256", pem};
    rc = sign(token, &key, ret, err);
    sodium_memzero(pem, strlen(pem));
    return rc;
}
