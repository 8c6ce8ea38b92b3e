/* Head and chunked parsing: no read outside the bytes, slices stay inside them, a prefix of an
 * accepted head is never refused, the chunked decoder answers the same however its input is cut. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/err.h"
#include "libtrack/base/mem.h"
#include "libtrack/http/h1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_slice(struct trk_h1_slice s, const char *bytes, size_t len)
{
    trk_assert(s.at >= bytes && s.at + s.len <= bytes + len);
}

static void check_headers(const struct trk_h1_header *headers, size_t count, const char *bytes,
                          size_t len)
{
    for (size_t i = 0; i < count; i++) {
        check_slice(headers[i].name, bytes, len);
        check_slice(headers[i].value, bytes, len);
        trk_assert(headers[i].name.len > 0);
        trk_assert(memchr(headers[i].value.at, '\n', headers[i].value.len) == NULL);
    }
}

static void check_request(const char *bytes, size_t len)
{
    static struct trk_h1_request r;
    int n = trk_h1_parse_request(&r, bytes, len);
    trk_assert(n <= (int)len);
    if (n <= 0) {
        return;
    }
    check_slice(r.method, bytes, len);
    check_slice(r.target, bytes, len);
    check_headers(r.headers, r.header_count, bytes, (size_t)n);
    trk_assert(trk_h1_parse_request(&r, bytes, (size_t)n / 2) == 0);
    trk_assert(trk_h1_parse_request(&r, bytes, (size_t)n - 1) == 0);
}

static uint64_t decode(const char *bytes, size_t len, size_t step)
{
    struct trk_h1_chunked c;
    trk_h1_chunked_init(&c);
    size_t at = 0, used;
    uint64_t sum = 1469598103934665603u;
    int n = 0;
    while (n == 0 && at < len) {
        size_t piece = len - at < step ? len - at : step;
        struct trk_h1_slice payload;
        n = trk_h1_chunked_next(&c, bytes + at, piece, &used, &payload);
        trk_assert(used <= piece && (used > 0 || n != 0));
        check_slice(payload, bytes, len);
        for (size_t i = 0; i < payload.len; i++) {
            sum = (sum ^ (unsigned char)payload.at[i]) * 1099511628211u;
        }
        at += used;
    }
    return sum ^ (uint64_t)(n + 2) ^ (n == 1 ? at << 8 : 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *bytes = trk_xmalloc(size + (size == 0));
    memcpy(bytes, data, size);
    check_request(bytes, size);
    static struct trk_h1_response a;
    int n = trk_h1_parse_response(&a, bytes, size);
    if (n > 0) {
        check_headers(a.headers, a.header_count, bytes, (size_t)n);
    }
    if (size > 0) {
        trk_assert(decode(bytes, size, size) == decode(bytes, size, 1));
        trk_assert(decode(bytes, size, size) == decode(bytes, size, 7));
    }
    free(bytes);
    return 0;
}
