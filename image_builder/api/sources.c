/* PUT /api/v1/sources/{digest}: what builds are made from. The body goes to the disk as it comes.
 */
#include "image_builder/housekeeping.h"
#include "libtrack/base/mem.h"

#define SOURCE_MAX ((size_t)16 << 30)
#define IN_USE_MAX ((size_t)64 << 20)

static void drop_temp(void *user)
{
    store_temp_free(user);
}

static int add_body(struct trk_request *req, const void *bytes, size_t len, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    struct store_temp *temp = trk_req_user(req);
    if (temp == NULL) {
        if (!trk_digest_is_valid(trk_req_param(req, "digest"))) {
            return trk_err_set(err, TRK_INVALID, "a digest is sha256: and 64 hexadecimal digits");
        }
        int rc = store_temp_new(ib->sources, &temp, err);
        if (rc < 0) {
            return rc;
        }
        trk_req_set_user(req, temp, drop_temp);
    }
    return store_temp_add(temp, bytes, len, err);
}

static int put_source(struct trk_request *req, struct trk_err *err)
{
    struct store_temp *temp = trk_req_user(req);
    if (temp == NULL) {
        return trk_err_set(err, TRK_INVALID, "a source must not be empty");
    }
    int rc = store_temp_commit(temp, trk_req_param(req, "digest"), NULL, err);
    return rc < 0 ? rc : trk_reply_empty(req, 201);
}

static int post_retention(struct trk_request *req, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    (void)err;
    /* a copy: two threads must not share a JSON value's reference count */
    housekeeping_tell(ib->housekeeping, json_deep_copy(trk_req_json(req)));
    return trk_reply_empty(req, 202);
}

static const char retention_schema[] =
    "{\"type\":\"object\",\"required\":[\"images\",\"sources\"],\"properties\":{"
    "\"images\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"description\":\"name, @, "
    "digest "
    "of the manifest\"},"
    "\"sources\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}}}";

static const struct trk_route routes[] = {
    {.method = "PUT",
     .path = "/api/v1/sources/{digest}",
     .access = "internal",
     .handler = put_source,
     .on_body = add_body,
     .flags = TRK_ROUTE_STREAM_BODY,
     .body_max_bytes = SOURCE_MAX,
     .help = "Keep a source, a tar or tar.gz, under its digest; builds name it by that."},
    {.method = "POST",
     .path = "/api/v1/retention",
     .access = "internal",
     .request_schema = retention_schema,
     .handler = post_retention,
     .body_max_bytes = IN_USE_MAX,
     .help = "All images and sources that jobs and deployments use; others are removed when they "
             "are older than unused_retention_s."},
};
const struct trk_route_table builder_source_table = {"sources", routes, TRK_COUNT(routes)};
