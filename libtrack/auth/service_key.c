/*
 * service_key.c - the key pair (P-256) that lifecycle signs with for services which hold no
 * AUTH_KEY. Its private half is derived from AUTH_KEY: nothing more to configure, keep or rotate.
 */
#include "libtrack/auth/service_key.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/obj_mac.h>
#include <sodium.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

#define SCALAR 32
#define POINT  65 /* 0x04, x, y */
#define SEED   48 /* 128 bits more than the order has: the remainder is as good as uniform */

/* RFC 5915 ECPrivateKey and RFC 5480 SubjectPublicKeyInfo on prime256v1, around the numbers. */
static const unsigned char private_head[] = {0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20};
static const unsigned char private_mid[] = {0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
                                            0x03, 0x01, 0x07, 0xa1, 0x44, 0x03, 0x42, 0x00};
static const unsigned char public_head[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                            0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00};

struct pair {
    unsigned char scalar[SCALAR], point[POINT];
};

static void derive(const char *auth_key, struct pair *ret)
{
    static const char purpose[] = "racetrack ES256 service key";
    unsigned char key[crypto_generichash_BYTES], seed[SEED];
    (void)crypto_generichash(key, sizeof(key), (const unsigned char *)auth_key, strlen(auth_key),
                             NULL, 0);
    (void)crypto_generichash(seed, sizeof(seed), (const unsigned char *)purpose, strlen(purpose),
                             key, sizeof(key));
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    BN_CTX *ctx = BN_CTX_secure_new();
    trk_assert(group != NULL && ctx != NULL);
    EC_POINT *point = EC_POINT_new(group);
    BIGNUM *range = BN_dup(EC_GROUP_get0_order(group));
    BIGNUM *scalar = BN_bin2bn(seed, sizeof(seed), NULL);
    trk_assert(point != NULL && range != NULL && scalar != NULL && BN_sub_word(range, 1) == 1 &&
               BN_mod(scalar, scalar, range, ctx) == 1 && BN_add_word(scalar, 1) == 1 &&
               BN_bn2binpad(scalar, ret->scalar, SCALAR) == SCALAR &&
               EC_POINT_mul(group, point, scalar, NULL, NULL, ctx) == 1 &&
               EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, ret->point, POINT,
                                  ctx) == POINT);
    BN_clear_free(scalar);
    BN_free(range);
    EC_POINT_free(point);
    BN_CTX_free(ctx);
    EC_GROUP_free(group);
    sodium_memzero(key, sizeof(key));
    sodium_memzero(seed, sizeof(seed));
}

static char *base64(const unsigned char *bytes, size_t len)
{
    size_t size = sodium_base64_ENCODED_LEN(len, sodium_base64_VARIANT_ORIGINAL);
    return sodium_bin2base64(trk_xmalloc(size), size, bytes, len, sodium_base64_VARIANT_ORIGINAL);
}

/* PEM of one line of base64, in lines of 64 (RFC 7468). Returns owned. */
static char *pem(const char *label, const char *text)
{
    struct trk_buf buf;
    trk_buf_init(&buf, 4096);
    (void)trk_buf_addf(&buf, "-----BEGIN %s-----\n", label);
    for (size_t len = strlen(text), at = 0; at < len; at += 64) {
        (void)trk_buf_addf(&buf, "%.64s\n", text + at);
    }
    (void)trk_buf_addf(&buf, "-----END %s-----\n", label);
    return trk_buf_steal(&buf, NULL);
}

char *trk_service_key_private_pem(const char *auth_key)
{
    struct pair pair;
    derive(auth_key, &pair);
    unsigned char der[sizeof(private_head) + SCALAR + sizeof(private_mid) + POINT];
    unsigned char *p = mempcpy(der, private_head, sizeof(private_head));
    p = mempcpy(p, pair.scalar, SCALAR);
    p = mempcpy(p, private_mid, sizeof(private_mid));
    memcpy(p, pair.point, POINT);
    char *text = base64(der, sizeof(der));
    char *result = pem("EC PRIVATE KEY", text);
    sodium_memzero(&pair, sizeof(pair));
    sodium_memzero(der, sizeof(der));
    sodium_memzero(text, strlen(text));
    free(text);
    return result;
}

char *trk_service_key_public(const char *auth_key)
{
    struct pair pair;
    derive(auth_key, &pair);
    unsigned char der[sizeof(public_head) + POINT];
    memcpy(mempcpy(der, public_head, sizeof(public_head)), pair.point, POINT);
    sodium_memzero(&pair, sizeof(pair));
    return base64(der, sizeof(der));
}

char *trk_service_key_public_pem(const char *public_key)
{
    unsigned char der[sizeof(public_head) + POINT];
    size_t len;
    if (sodium_base642bin(der, sizeof(der), public_key, strlen(public_key), NULL, &len, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0 ||
        len != sizeof(der) || memcmp(der, public_head, sizeof(public_head)) != 0) {
        return NULL;
    }
    return pem("PUBLIC KEY", public_key);
}
