#include <sys/statvfs.h>
#include <unistd.h>

#include "image_builder/image_builder.h"
#include "image_builder/store/store.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "version.h"

#define FREE_BYTES_LOW (UINT64_C(1) << 30)

/* The state of what a build needs: the store's folder writable, room on its disk. */
static const char *check(const struct image_builder *ib, char *details, size_t size)
{
    struct statvfs fs;
    const char *root = store_root(ib->store);
    if (access(root, W_OK | X_OK) < 0 || statvfs(root, &fs) < 0) {
        (void)snprintf(details, size, "the image store can not be written");
        return "fail";
    }
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (free_bytes < FREE_BYTES_LOW) {
        (void)snprintf(details, size, "only %llu MiB are free on the image store's disk",
                       (unsigned long long)(free_bytes >> 20));
        return "warn";
    }
    return "pass";
}

static int get_health(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    const struct image_builder *ib = trk_req_ctx(req);
    char details[128] = "";
    const char *status = check(ib, details, sizeof(details));
    json_t *body = json_pack("{s:s, s:s, s:s, s:s}", "service", "image-builder", "git_version",
                             TRK_GIT_VERSION, "docker_tag", ib->config->docker_tag, "status",
                             status);
    if (details[0] != '\0') {
        (void)json_object_set_new(body, "details", json_string(details));
    }
    return trk_reply_json(req, strcmp(status, "fail") == 0 ? 503 : 200, body);
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/live",
     .access = "public",
     .handler = trk_http_live_handler,
     .flags = TRK_ROUTE_QUIET,
     .help = "Is the process alive?"},
    {.method = "GET",
     .path = "/ready",
     .access = "public",
     .handler = trk_http_ready_handler,
     .flags = TRK_ROUTE_QUIET,
     .help = "Does it take requests?"},
    {.method = "GET",
     .path = "/health",
     .access = "public",
     .handler = get_health,
     .flags = TRK_ROUTE_QUIET,
     .response_schema = "{\"type\":\"object\",\"properties\":{\"service\":{\"type\":\"string\"},"
                        "\"git_version\":{\"type\":\"string\"},\"docker_tag\":{\"type\":\"string\"}"
                        ",\"status\":{\"enum\":[\"pass\",\"warn\",\"fail\"]},\"details\":{\"type\":"
                        "\"string\"}}}",
     .help = "State of what builds need: pass, warn, or fail (503)."},
    {.method = "GET",
     .path = "/metrics",
     .access = "public",
     .handler = trk_http_metrics_handler,
     .flags = TRK_ROUTE_QUIET,
     .help = "Prometheus metrics."},
};
const struct trk_route_table builder_health_table = {"health", routes, TRK_COUNT(routes)};
