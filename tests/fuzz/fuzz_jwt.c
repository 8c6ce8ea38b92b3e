/* Tokens: no bytes pass with a key that nobody used; the payload's reader sees arbitrary payloads
 * with a right signature, and what it accepts can be signed and verified again. */
#include <sodium.h>
#include <stdint.h>

#include "libtrack/auth/jwt.h"
#include "libtrack/base/buf.h"
#include "libtrack/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char key[] = "a-key-of-the-fuzzer-with-more-than-32-bytes";

static void add_part(struct trk_buf *buf, const void *bytes, size_t len)
{
    size_t room = sodium_base64_ENCODED_LEN(len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    char *at = trk_buf_reserve(buf, room);
    trk_assert(at != NULL);
    (void)sodium_bin2base64(at, room, bytes, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    trk_buf_commit(buf, strlen(at));
}

static void check_signed_payload(const uint8_t *payload, size_t len)
{
    static const char header[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
    unsigned char mac[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state state;
    struct trk_buf buf;
    struct trk_token token;
    struct trk_token again;
    struct trk_err err = {0};
    trk_buf_init(&buf, 1 << 20);
    add_part(&buf, header, sizeof(header) - 1);
    (void)trk_buf_addc(&buf, '.');
    add_part(&buf, payload, len);
    (void)crypto_auth_hmacsha256_init(&state, (const unsigned char *)key, strlen(key));
    (void)crypto_auth_hmacsha256_update(&state, (const unsigned char *)buf.data, buf.len);
    (void)crypto_auth_hmacsha256_final(&state, mac);
    (void)trk_buf_addc(&buf, '.');
    add_part(&buf, mac, sizeof(mac));
    if (trk_jwt_verify(buf.data, key, &token, &err) == 0) {
        trk_autofree char *text = NULL;
        trk_assert(token.subject[0] != '\0' && token.seed[0] != '\0');
        /* a token that was just short enough may be longer with our white space and key order */
        if (trk_jwt_sign(&token, key, &text, &err) == 0) {
            trk_assert(trk_jwt_verify(text, key, &again, &err) == 0);
            trk_assert(memcmp(&token, &again, sizeof(token)) == 0);
        }
    } else {
        trk_assert(err.code == TRK_UNAUTHENTICATED);
    }
    trk_buf_fini(&buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct trk_token token;
    struct trk_err err = {0};
    trk_autofree char *text = trk_xstrndup((const char *)data, size);
    trk_assert(trk_jwt_verify(text, key, &token, &err) == TRK_UNAUTHENTICATED);
    if (size < 2 * TRK_TOKEN_MAX) {
        check_signed_payload(data, size);
    }
    return 0;
}
