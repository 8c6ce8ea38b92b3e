/* Server-sent events: however the bytes are cut, the same events come out; nothing crashes. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/mem.h"
#include "libtrack/http/http_client.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static int keep(void *ctx, const char *event, const char *id, const char *data, struct trk_err *err)
{
    (void)err;
    return trk_buf_addf(ctx, "%s\x1f%s\x1f%s\x1e", event, id, data);
}

static void run(const uint8_t *bytes, size_t len, size_t piece, struct trk_buf *events)
{
    struct trk_err err = {0};
    struct trk_sse *sse = trk_sse_new(keep, events);
    for (size_t at = 0; at < len; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        if (trk_sse_feed(sse, (const char *)bytes + at, n, &err) < 0) {
            break;
        }
    }
    trk_sse_free(sse);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct trk_buf whole;
    struct trk_buf cut;
    trk_buf_init(&whole, 64 << 20);
    trk_buf_init(&cut, 64 << 20);
    run(bytes, len, len > 0 ? len : 1, &whole);
    run(bytes, len, 1, &cut);
    trk_assert(whole.len == cut.len && memcmp(whole.data, cut.data, whole.len) == 0);
    trk_buf_fini(&whole);
    trk_buf_fini(&cut);
    return 0;
}
