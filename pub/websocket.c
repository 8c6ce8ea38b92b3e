#include "pub/websocket.h"

#include <openssl/sha.h>
#include <sodium.h>
#include <string.h>

#define KEY_LEN    24 /* 16 bytes in base64 */
#define ACCEPT_LEN 28 /* 20 bytes in base64 */

/* The value of the one header of that name; NULL: none, or several. */
static const struct trk_h1_slice *only(const struct trk_h1_header *headers, size_t count,
                                       const char *lower)
{
    const struct trk_h1_slice *found = NULL;
    for (size_t i = 0; i < count; i++) {
        if (trk_h1_is(headers[i].name, lower)) {
            if (found != NULL) {
                return NULL;
            }
            found = &headers[i].value;
        }
    }
    return found;
}

static bool is_value(const struct trk_h1_slice *value, const char *lower)
{
    return value != NULL && trk_h1_is(*value, lower);
}

static bool is_key(const struct trk_h1_slice *key)
{
    unsigned char bytes[16];
    size_t len = 0;
    return key != NULL && key->len == KEY_LEN &&
           sodium_base642bin(bytes, sizeof(bytes), key->at, key->len, NULL, &len, NULL,
                             sodium_base64_VARIANT_ORIGINAL) == 0 &&
           len == sizeof(bytes);
}

bool pub_websocket_is_asked(const struct trk_h1_request *r)
{
    const struct trk_h1_header *h = r->headers;
    size_t n = r->header_count;
    return r->upgrade && r->body == TRK_H1_NO_BODY && r->method.len == 3 &&
           memcmp(r->method.at, "GET", 3) == 0 && is_value(only(h, n, "upgrade"), "websocket") &&
           is_value(only(h, n, "sec-websocket-version"), "13") &&
           is_key(only(h, n, "sec-websocket-key"));
}

bool pub_websocket_is_answered(const struct trk_h1_request *r, const struct trk_h1_response *answer)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const struct trk_h1_header *h = answer->headers;
    size_t n = answer->header_count;
    const struct trk_h1_slice *key = only(r->headers, r->header_count, "sec-websocket-key");
    const struct trk_h1_slice *accept = only(h, n, "sec-websocket-accept");
    const struct trk_h1_header *connection = trk_h1_find(h, n, "connection");
    if (!is_key(key) || accept == NULL || accept->len != ACCEPT_LEN || connection == NULL ||
        !trk_h1_has_token(connection->value, "upgrade") ||
        !is_value(only(h, n, "upgrade"), "websocket")) {
        return false;
    }
    char text[KEY_LEN + sizeof(guid)];
    unsigned char digest[SHA_DIGEST_LENGTH];
    char wanted[ACCEPT_LEN + 1];
    memcpy(text, key->at, KEY_LEN);
    memcpy(text + KEY_LEN, guid, sizeof(guid));
    (void)SHA1((const unsigned char *)text, KEY_LEN + sizeof(guid) - 1, digest);
    (void)sodium_bin2base64(wanted, sizeof(wanted), digest, sizeof(digest),
                            sodium_base64_VARIANT_ORIGINAL);
    return memcmp(accept->at, wanted, ACCEPT_LEN) == 0;
}
