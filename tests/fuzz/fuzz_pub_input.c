/* What pub reads from outside beside HTTP framing: paths and cookies. Whatever comes,
 * slices stay inside the memory they were promised, and no dot segment gets through. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/err.h"
#include "libtrack/base/mem.h"
#include "pub/path.h"
#include "pub/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_no_dots(struct trk_h1_slice s)
{
    size_t start = 0;
    for (size_t i = 0; i <= s.len; i++) {
        if (i == s.len || s.at[i] == '/') {
            size_t len = i - start;
            trk_assert(!(len == 1 && s.at[start] == '.'));
            trk_assert(!(len == 2 && memcmp(s.at + start, "..", 2) == 0));
            start = i + 1;
        }
    }
}

static void check_path(const char *bytes, size_t size)
{
    struct pub_route r;
    struct trk_h1_slice target = {bytes, size};
    const char *fault = NULL;
    char *scratch = trk_xmalloc(size + 1);
    int n = pub_path_route(&r, target, "pub", scratch, &fault);
    trk_assert(n == 0 || (n == -400 && fault != NULL));
    if (n == 0 && r.kind == PUB_ROUTE_JOB) {
        trk_assert(r.job.len > 0 && r.version.len > 0);
        trk_assert(memchr(r.job.at, '/', r.job.len) == NULL);
        trk_assert(memchr(r.version.at, '/', r.version.len) == NULL);
        trk_assert(r.rest.at + r.rest.len == bytes + size);
        check_no_dots(r.job);
        check_no_dots(r.version);
        check_no_dots(r.endpoint);
        trk_assert(r.endpoint.len <= size && memchr(r.endpoint.at, '\\', r.endpoint.len) == NULL);
    }
    free(scratch);
}

static void check_cookie(const char *bytes, size_t size)
{
    static struct trk_h1_request r;
    r.header_count = 1;
    r.headers[0] = (struct trk_h1_header){{"Cookie", 6}, {bytes, size}, TRK_H1_COOKIE};
    char *scratch = trk_xmalloc(size + 1);
    struct pub_token_found token = {.text = {"", 0}};
    if (size <= TRK_H1_TARGET_MAX && pub_token_find(&r, scratch, &token) == 0) {
        for (size_t i = 0; i < token.text.len; i++) {
            trk_assert(token.text.at[i] > ' ' && token.text.at[i] < 0x7F);
        }
    }
    free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *bytes = trk_xmalloc(size + (size == 0));
    memcpy(bytes, data, size);
    check_path(bytes, size);
    check_cookie(bytes, size);
    free(bytes);
    return 0;
}
