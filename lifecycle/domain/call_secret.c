#include "lifecycle/domain/call_secret.h"

#include <sodium.h>
#include <string.h>

void call_secret_make(const char *secret_key, const char *generation_id, char out[CALL_SECRET_SIZE])
{
    static const char purpose[] = "racetrack job call ";
    unsigned char mac[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state state;
    (void)crypto_auth_hmacsha256_init(&state, (const unsigned char *)secret_key,
                                      strlen(secret_key));
    (void)crypto_auth_hmacsha256_update(&state, (const unsigned char *)purpose, strlen(purpose));
    (void)crypto_auth_hmacsha256_update(&state, (const unsigned char *)generation_id,
                                        strlen(generation_id));
    (void)crypto_auth_hmacsha256_final(&state, mac);
    (void)sodium_bin2base64(out, CALL_SECRET_SIZE, mac, sizeof(mac),
                            sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    sodium_memzero(mac, sizeof(mac));
    sodium_memzero(&state, sizeof(state));
}
