/* Passwords of crypto.h: argon2id by libsodium, Django's PBKDF2 by OpenSSL. */
#include <openssl/evp.h>
#include <pthread.h>
#include <semaphore.h>
#include <sodium.h>
#include <string.h>

#include "libtrack/base/crypto.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

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
