/*
 * crypto.h - digests, passwords, sealed secrets. Any thread.
 */
#ifndef LIBTRACK_CRYPTO_H
#define LIBTRACK_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/base/err.h"

#define TRK_SHA256_SIZE 32
#define TRK_DIGEST_SIZE 72 /* "sha256:" + 64 hex + NUL */

void trk_sha256(const void *bytes, size_t len, unsigned char out[TRK_SHA256_SIZE]);
struct trk_sha256_ctx; /* streaming, over OpenSSL EVP */
struct trk_sha256_ctx *trk_sha256_new(void);
void trk_sha256_update(struct trk_sha256_ctx *ctx, const void *bytes, size_t len);
void trk_sha256_final(
    struct trk_sha256_ctx *ctx,
    unsigned char out[TRK_SHA256_SIZE]); /* the context stays usable after a reset */
void trk_sha256_free(struct trk_sha256_ctx *ctx);
/* "sha256:<hex>" of bytes. */
void trk_digest(const void *bytes, size_t len, char out[TRK_DIGEST_SIZE]);
bool trk_digest_is_valid(const char *text);

/* argon2id INTERACTIVE (56 ms, 64 MiB); at most two run at once. `out` fits any hash. */
#define TRK_PASSWORD_HASH_SIZE 160
int trk_password_hash(const char *password, char out[TRK_PASSWORD_HASH_SIZE],
                      struct trk_err *err) TRK_MUST_CHECK;
/* Knows argon2id and Django's pbkdf2_sha256. Constant time. *ret_needs_rehash may be NULL. */
bool trk_password_verify(const char *password, const char *hash, bool *ret_needs_rehash);

bool trk_secret_equal(const char *a, const char *b); /* constant time in the content */
void trk_random_hex(char *out, size_t bytes);        /* 2*bytes+1 */

/* XChaCha20-Poly1305 with a key derived from `secret_key`; `identity` (row id) is associated data.
 * *ret owned. */
int trk_seal(const char *secret_key, const char *identity, const void *bytes, size_t len,
             void **ret, size_t *ret_len, struct trk_err *err) TRK_MUST_CHECK;
int trk_unseal(const char *secret_key, const char *identity, const void *bytes, size_t len,
               void **ret, size_t *ret_len, struct trk_err *err) TRK_MUST_CHECK;

#endif
