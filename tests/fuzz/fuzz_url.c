/* Percent encoding, base64, UTF-8 and escape sequences: decoding undoes encoding, and what strict
 * decoders accept is encoded back to the same text. */
#include <stdint.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_base64(const char *bytes, size_t len)
{
    struct trk_buf buf;
    trk_autofree void *decoded = NULL;
    trk_autofree void *direct = NULL;
    size_t decoded_len;
    trk_buf_init(&buf, 64u << 20);
    trk_assert(trk_base64_encode(&buf, bytes, len) == 0);
    trk_assert(trk_base64_decode(buf.data, buf.len, &decoded, &decoded_len, NULL) == 0);
    trk_assert(decoded_len == len && memcmp(decoded, bytes, len) == 0);
    trk_buf_reset(&buf);
    if (trk_base64_decode(bytes, len, &direct, &decoded_len, NULL) == 0) {
        trk_assert(trk_base64_encode(&buf, direct, decoded_len) == 0);
        trk_assert(buf.len == len && memcmp(buf.data, bytes, len) == 0);
    }
    trk_buf_fini(&buf);
}

static void check_url(const char *bytes, size_t len)
{
    struct trk_buf buf;
    trk_autofree char *decoded = NULL;
    trk_autofree char *direct = NULL;
    trk_buf_init(&buf, 64u << 20);
    trk_assert(trk_url_encode(&buf, bytes, len, NULL) == 0);
    int rc = trk_url_decode(buf.data, buf.len, &decoded, NULL);
    if (memchr(bytes, '\0', len) != NULL) {
        trk_assert(rc == TRK_INVALID);
    } else {
        trk_assert(rc == 0 && strlen(decoded) == len && memcmp(decoded, bytes, len) == 0);
    }
    if (trk_url_decode(bytes, len, &direct, NULL) == 0) {
        trk_assert(strlen(direct) <= len);
    }
    trk_buf_fini(&buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char no_bytes[1];
    const char *bytes = size > 0 ? (const char *)data : no_bytes;
    check_base64(bytes, size);
    check_url(bytes, size);
    (void)trk_utf8_is_valid(bytes, size);
    trk_autofree char *text = trk_xstrndup(bytes, size);
    trk_strip_ansi(text);
    trk_assert(strchr(text, '\x1b') == NULL);
    return 0;
}
