/* Request targets of the wrapper: whatever comes, the parts lie within the target and the decoded
 * path is a string. */
#include <stdint.h>
#include <string.h>

#include "libtrack/base/err.h"
#include "wrapper/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct route route;
    const char *target = (const char *)data;
    int status = route_resolve(target, size, &route);
    trk_assert(status == 0 || status == 400 || status == 414);
    if (status == 0) {
        trk_assert(route.base == target && route.base_len <= size);
        trk_assert(route.query_len <= size - route.base_len);
        trk_assert(route.query + route.query_len == target + size);
        trk_assert(route.query_len == 0 || *route.query == '?');
        trk_assert(strlen(route.path) < ROUTE_PATH_MAX);
        trk_assert(route.kind == ROUTE_ADD_SLASH || route.path[0] == '/');
    }
    return 0;
}
