#include "libtrack/base/crypto.h"

#include <pthread.h>
#include <sodium.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_once(void)
{
    trk_assert(sodium_init() >= 0);
}

static void init(void)
{
    (void)pthread_once(&once, init_once);
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
