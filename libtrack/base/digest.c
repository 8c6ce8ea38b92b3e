/* SHA-256 of crypto.h: OpenSSL's is four times as fast as libsodium's. A file of its own, so that
 * programs without blobs (pub) do not load OpenSSL. */
#include <openssl/evp.h>
#include <string.h>

#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

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
