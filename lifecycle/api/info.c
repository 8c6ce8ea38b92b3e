#include "libtrack/base/mem.h"
#include "lifecycle/api/api.h"
#include "lifecycle/config.h"
#include "version.h"

struct info {
    const char *service, *version, *git_version, *docker_tag, *pub_url, *lifecycle_url;
    const char *grafana_url;
    bool auth_required;
};
static const struct dto_field info_fields[] = {
    {"service", DTO_TEXT, DTO_AT(struct info, service)},
    {"version", DTO_TEXT, DTO_AT(struct info, version)},
    {"git_version", DTO_TEXT, DTO_AT(struct info, git_version)},
    {"docker_tag", DTO_TEXT, DTO_AT(struct info, docker_tag)},
    {"auth_required", DTO_BOOLEAN, DTO_AT(struct info, auth_required)},
    {"external_pub_url", DTO_TEXT, DTO_AT(struct info, pub_url)},
    {"lifecycle_url", DTO_TEXT, DTO_AT(struct info, lifecycle_url)},
    {"grafana_url", DTO_TEXT, DTO_AT(struct info, grafana_url)},
};
const struct dto api_info_dto = DTO("Info", struct info, info_fields);

static int get_info(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    const struct lifecycle_config *config = api_lifecycle(req)->config;
    const struct info info = {.service = "lifecycle",
                              .version = TRK_VERSION,
                              .git_version = TRK_GIT_VERSION,
                              .docker_tag = config->docker_tag,
                              .auth_required = config->auth_required,
                              .pub_url = config->external_pub_url,
                              .lifecycle_url = config->external_lifecycle_url,
                              .grafana_url = config->external_grafana_url};
    return api_reply_dto(req, &api_info_dto, &info);
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
