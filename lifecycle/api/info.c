#include "libtrack/base/mem.h"
#include "lifecycle/api/api.h"
#include "lifecycle/config.h"
#include "version.h"

static int get_info(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    const struct lifecycle_config *config = api_lifecycle(req)->config;
    return trk_reply_json(
        req, 200,
        json_pack("{s:s,s:s,s:s,s:s,s:b,s:s,s:s,s:s}", "service", "lifecycle", "version",
                  TRK_VERSION, "git_version", TRK_GIT_VERSION, "docker_tag", config->docker_tag,
                  "auth_required", (int)config->auth_required, "external_pub_url",
                  config->external_pub_url, "lifecycle_url", config->external_lifecycle_url,
                  "grafana_url", config->external_grafana_url));
}

static int get_plugins(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    return trk_reply_json(req, 200, json_array());
}

/* Where the original has its administration's pages. */
static int get_admin(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    (void)trk_reply_header(req, "Location", "../docs");
    return trk_reply_empty(req, 307);
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/admin/",
     .access = "public",
     .flags = TRK_ROUTE_HIDDEN,
     .handler = get_admin,
     .help = "Leads to the page of this API, where users, ESCs and permissions are administrated."},
    {.method = "GET",
     .path = "/api/v1/info",
     .access = "public",
     .response_schema = API_REF("Info"),
     .handler = get_info,
     .help = "Versions and addresses of this installation."},
    {.method = "GET",
     .path = "/api/v1/info/plugins",
     .access = "public",
     .flags = TRK_ROUTE_HIDDEN | TRK_ROUTE_DEPRECATED,
     .handler = get_plugins,
     .help = "Plugins cloned from git: none, job types are built in."},
};
API_TABLE(api_info_routes, "info", routes);
