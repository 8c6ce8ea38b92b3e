#include "libtrack/crypto.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <semaphore.h>
#include <sodium.h>
#include <string.h>

#include "libtrack/log.h"
#include "libtrack/mem.h"
#include "libtrack/str.h"

#define PASSWORD_BYTES_MAX    4096
#define PASSWORD_AT_ONCE      2 /* argon2 takes 64 MiB and a whole core each */
#define DJANGO_ITERATIONS_MAX 5000000

static sem_t password_slots;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_once(void)
{
    trk_assert(sodium_init() >= 0);
    trk_assert(sem_init(&password_slots, 0, PASSWORD_AT_ONCE) == 0);
}

static void init(void)
{
    (void)pthread_once(&once, init_once);
}

/* ---- SHA-256: OpenSSL's is four times as fast as libsodium's ---- */

struct trk_sha256_ctx {
    EVP_MD_CTX *evp;
};

struct trk_sha256_ctx *trk_sha256_new(void)
{
    struct trk_sha256_ctx *ctx = trk_xcalloc(1, sizeof(*ctx));
    ctx->evp = EVP_MD_CTX_new();
    trk_assert(ctx->evp != NULL && EVP_DigestInit_ex(ctx->evp, EVP_sha256(), NULL) == 1);
    return ctx;
}

void trk_sha256_update(struct trk_sha256_ctx *ctx, const void *bytes, size_t len)
{
    trk_assert(EVP_DigestUpdate(ctx->evp, bytes, len) == 1);
}

void trk_sha256_final(struct trk_sha256_ctx *ctx, unsigned char out[TRK_SHA256_SIZE])
{
    trk_assert(EVP_DigestFinal_ex(ctx->evp, out, NULL) == 1);
    trk_assert(EVP_DigestInit_ex(ctx->evp, EVP_sha256(), NULL) == 1);
}

void trk_sha256_free(struct trk_sha256_ctx *ctx)
{
    if (ctx != NULL) {
        EVP_MD_CTX_free(ctx->evp);
        free(ctx);
    }
}

void trk_sha256(const void *bytes, size_t len, unsigned char out[TRK_SHA256_SIZE])
{
    trk_assert(EVP_Digest(bytes, len, out, NULL, EVP_sha256(), NULL) == 1);
}

static const char digest_prefix[] = "sha256:";

void trk_digest(const void *bytes, size_t len, char out[TRK_DIGEST_SIZE])
{
    unsigned char sum[TRK_SHA256_SIZE];
    trk_sha256(bytes, len, sum);
    memcpy(out, digest_prefix, sizeof(digest_prefix));
    trk_hex(sum, sizeof(sum), out + sizeof(digest_prefix) - 1);
}

bool trk_digest_is_valid(const char *text)
{
    return trk_str_has_prefix(text, digest_prefix) && strlen(text) == TRK_DIGEST_SIZE - 1 &&
           strspn(text + sizeof(digest_prefix) - 1, "0123456789abcdef") == TRK_SHA256_SIZE * 2;
}

/* ---- passwords ---- */

static void take_slot(void)
{
    init();
    while (sem_wait(&password_slots) < 0) {
        /* a signal: wait on */
    }
}

static void give_slot(void)
{
    (void)sem_post(&password_slots);
}

int trk_password_hash(const char *password, char out[TRK_PASSWORD_HASH_SIZE], struct trk_err *err)
{
    _Static_assert(crypto_pwhash_STRBYTES <= TRK_PASSWORD_HASH_SIZE, "a hash fits");
    size_t len = strlen(password);
    if (len == 0 || len > PASSWORD_BYTES_MAX) {
        return trk_err_set(err, TRK_INVALID, "a password must have 1 to %d bytes",
                           PASSWORD_BYTES_MAX);
    }
    char hash[TRK_PASSWORD_HASH_SIZE] = {0};
    take_slot();
    int rc = crypto_pwhash_str(hash, password, len, crypto_pwhash_OPSLIMIT_INTERACTIVE,
                               crypto_pwhash_MEMLIMIT_INTERACTIVE);
    give_slot();
    if (rc != 0) {
        return trk_err_set(err, TRK_UNAVAILABLE, "not enough memory to hash a password (64 MiB)");
    }
    memcpy(out, hash, sizeof(hash));
    return 0;
}

/* Django's "pbkdf2_sha256$<iterations>$<salt>$<base64 of 32 bytes>". */
static bool verify_django(const char *password, const char *hash)
{
    trk_autofree char *copy = trk_xstrdup(hash);
    char *rest = copy;
    (void)strsep(&rest, "$");
    const char *iterations_text = strsep(&rest, "$");
    const char *salt = rest != NULL ? strsep(&rest, "$") : NULL;
    int64_t iterations;
    trk_autofree void *wanted = NULL;
    size_t wanted_len = 0;
    if (iterations_text == NULL || salt == NULL || rest == NULL ||
        trk_parse_int64(iterations_text, 1, DJANGO_ITERATIONS_MAX, &iterations, NULL) < 0 ||
        trk_base64_decode(rest, strlen(rest), &wanted, &wanted_len, NULL) < 0 ||
        wanted_len != TRK_SHA256_SIZE) {
        return false;
    }
    unsigned char found[TRK_SHA256_SIZE];
    take_slot();
    int ok = PKCS5_PBKDF2_HMAC(password, (int)strlen(password), (const unsigned char *)salt,
                               (int)strlen(salt), (int)iterations, EVP_sha256(), sizeof(found),
                               found);
    give_slot();
    bool is_equal = ok == 1 && sodium_memcmp(found, wanted, sizeof(found)) == 0;
    sodium_memzero(found, sizeof(found));
    return is_equal;
}

/* Hash of an unguessable password, so that an unknown user costs what a known one costs. */
static const char *decoy_hash(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static char decoy[TRK_PASSWORD_HASH_SIZE];
    (void)pthread_mutex_lock(&lock);
    if (decoy[0] == '\0') {
        char random[65];
        trk_random_hex(random, 32);
        if (trk_password_hash(random, decoy, NULL) < 0) {
            trk_log_debug("no memory for the decoy hash", NULL);
        }
    }
    (void)pthread_mutex_unlock(&lock);
    return decoy;
}

bool trk_password_verify(const char *password, const char *hash, bool *ret_needs_rehash)
{
    init();
    if (strlen(password) > PASSWORD_BYTES_MAX) {
        return false;
    }
    if (hash != NULL && trk_str_has_prefix(hash, "pbkdf2_sha256$")) {
        bool is_right = verify_django(password, hash);
        if (is_right && ret_needs_rehash != NULL) {
            *ret_needs_rehash = true;
        }
        return is_right;
    }
    bool is_known = hash != NULL && trk_str_has_prefix(hash, crypto_pwhash_STRPREFIX) &&
                    strlen(hash) < crypto_pwhash_STRBYTES;
    char padded[TRK_PASSWORD_HASH_SIZE] = {0};
    (void)snprintf(padded, sizeof(padded), "%s", is_known ? hash : decoy_hash());
    take_slot();
    bool is_right = crypto_pwhash_str_verify(padded, password, strlen(password)) == 0;
    give_slot();
    is_right = is_right && is_known;
    if (is_right && ret_needs_rehash != NULL) {
        *ret_needs_rehash = crypto_pwhash_str_needs_rehash(padded,
                                                           crypto_pwhash_OPSLIMIT_INTERACTIVE,
                                                           crypto_pwhash_MEMLIMIT_INTERACTIVE) != 0;
    }
    return is_right;
}

/* ---- small things ---- */

bool trk_secret_equal(const char *a, const char *b)
{
    if (a == NULL || b == NULL) {
        return false;
    }
    size_t len = strlen(a);
    return len == strlen(b) && sodium_memcmp(a, b, len) == 0;
}

void trk_random_hex(char *out, size_t bytes)
{
    init();
    unsigned char random[64];
    while (bytes > 0) {
        size_t n = bytes < sizeof(random) ? bytes : sizeof(random);
        randombytes_buf(random, n);
        trk_hex(random, n, out);
        out += 2 * n;
        bytes -= n;
    }
    *out = '\0';
    sodium_memzero(random, sizeof(random));
}

/* ---- sealed secrets: version byte, nonce, XChaCha20-Poly1305 ---- */

#define SEAL_VERSION 1
#define NONCE_SIZE   crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_SIZE     crypto_aead_xchacha20poly1305_ietf_ABYTES
#define KEY_SIZE     crypto_aead_xchacha20poly1305_ietf_KEYBYTES
#define SEAL_HEADER  (1 + NONCE_SIZE)

static void derive_key(const char *secret_key, unsigned char key[KEY_SIZE])
{
    static const char purpose[] = "racetrack: secrets at rest, version 1";
    init();
    trk_assert(crypto_generichash(key, KEY_SIZE, (const unsigned char *)secret_key,
                                  strlen(secret_key), (const unsigned char *)purpose,
                                  sizeof(purpose) - 1) == 0);
}

int trk_seal(const char *secret_key, const char *identity, const void *bytes, size_t len,
             void **ret, size_t *ret_len, struct trk_err *err)
{
    size_t size;
    if (trk_str_is_empty(secret_key)) {
        return trk_err_set(err, TRK_INVALID, "SECRET_KEY is not set: secrets cannot be stored");
    }
    if (__builtin_add_overflow(len, SEAL_HEADER + TAG_SIZE, &size)) {
        return trk_err_set(err, TRK_TOO_LARGE, "the secret is too large");
    }
    unsigned char key[KEY_SIZE];
    derive_key(secret_key, key);
    unsigned char *sealed = trk_xmalloc(size);
    sealed[0] = SEAL_VERSION;
    randombytes_buf(sealed + 1, NONCE_SIZE);
    (void)crypto_aead_xchacha20poly1305_ietf_encrypt(sealed + SEAL_HEADER, NULL, bytes, len,
                                                     (const unsigned char *)identity,
                                                     strlen(identity), NULL, sealed + 1, key);
    sodium_memzero(key, sizeof(key));
    *ret = sealed;
    *ret_len = size;
    return 0;
}

int trk_unseal(const char *secret_key, const char *identity, const void *bytes, size_t len,
               void **ret, size_t *ret_len, struct trk_err *err)
{
    const unsigned char *sealed = bytes;
    if (trk_str_is_empty(secret_key)) {
        return trk_err_set(err, TRK_INVALID, "SECRET_KEY is not set: secrets cannot be read");
    }
    if (len < SEAL_HEADER + TAG_SIZE || sealed[0] != SEAL_VERSION) {
        return trk_err_set(err, TRK_INVALID, "not a sealed secret");
    }
    size_t plain_len = len - SEAL_HEADER - TAG_SIZE;
    unsigned char key[KEY_SIZE];
    derive_key(secret_key, key);
    unsigned char *plain = trk_xmalloc(plain_len + 1);
    int rc = crypto_aead_xchacha20poly1305_ietf_decrypt(
        plain, NULL, NULL, sealed + SEAL_HEADER, len - SEAL_HEADER, (const unsigned char *)identity,
        strlen(identity), sealed + 1, key);
    sodium_memzero(key, sizeof(key));
    if (rc != 0) {
        free(plain);
        return trk_err_set(err, TRK_INVALID,
                           "a stored secret cannot be read: it was sealed with another SECRET_KEY, "
                           "belongs to another row, or was changed");
    }
    plain[plain_len] = '\0';
    *ret = plain;
    *ret_len = plain_len;
    return 0;
}
