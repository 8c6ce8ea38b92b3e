/* Routes of the registry, its errors, its lists. */
#include "image_builder/api/v2.h"

#include <stdarg.h>
#include <string.h>
#include <talloc.h>

#include "image_builder/api/uploads.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/oci/oci.h"

#define BLOB_MAX      ((size_t)16 << 30)
#define LIST_PAGE_MAX 1000

/* ---- paths ---- */

static const struct {
    const char *middle; /* between the name and the reference */
    enum v2_kind kind;
} forms[] = {
    {"/blobs/uploads/", V2_UPLOAD}, /* before /blobs/ */
    {"/blobs/", V2_BLOB},
    {"/manifests/", V2_MANIFEST},
    {"/referrers/", V2_REFERRERS},
};

/* The last occurrence of `middle` followed by one segment or none. */
static const char *find_middle(const char *path, const char *middle)
{
    const char *last = NULL;
    for (const char *p = path; (p = strstr(p, middle)) != NULL; p++) {
        last = p;
    }
    return last != NULL && strchr(last + strlen(middle), '/') == NULL ? last : NULL;
}

static bool set_name(struct v2_target *target, const char *name, size_t len)
{
    if (len >= sizeof(target->repository)) {
        return false;
    }
    memcpy(target->repository, name, len);
    target->repository[len] = '\0';
    return trk_oci_repository_is_valid(target->repository);
}

bool v2_target_parse(const char *path, struct v2_target *ret)
{
    struct v2_target target = {0};
    size_t len = strlen(path);
    if (strcmp(path, "_catalog") == 0) {
        *ret = (struct v2_target){.kind = V2_CATALOG};
        return true;
    }
    if (trk_str_has_suffix(path, "/tags/list")) {
        target.kind = V2_TAGS;
        bool is_good = set_name(&target, path, len - strlen("/tags/list"));
        *ret = target;
        return is_good;
    }
    if (trk_str_has_suffix(path, "/blobs/uploads")) {
        target.kind = V2_UPLOADS;
        bool is_good = set_name(&target, path, len - strlen("/blobs/uploads"));
        *ret = target;
        return is_good;
    }
    for (size_t i = 0; i < TRK_COUNT(forms); i++) {
        const char *middle = find_middle(path, forms[i].middle);
        if (middle == NULL) {
            continue;
        }
        const char *reference = middle + strlen(forms[i].middle);
        target.kind = forms[i].kind;
        if (target.kind == V2_UPLOAD && reference[0] == '\0') {
            target.kind = V2_UPLOADS;
        } else if (reference[0] == '\0' || strlen(reference) >= sizeof(target.reference)) {
            return false;
        }
        (void)snprintf(target.reference, sizeof(target.reference), "%s", reference);
        bool is_good = set_name(&target, path, (size_t)(middle - path));
        *ret = target;
        return is_good;
    }
    return false;
}

/* ---- a request's state ---- */

static void state_fini(void *user)
{
    struct v2_state *state = user;
    v2_state_end_upload(state);
    store_temp_free(state->temp);
    trk_buf_fini(&state->manifest);
    free(state);
}

struct v2_state *v2_state(struct trk_request *req)
{
    struct v2_state *state = trk_req_user(req);
    if (state == NULL) {
        state = trk_xcalloc(1, sizeof(*state));
        trk_buf_init(&state->manifest, STORE_MANIFEST_MAX);
        if (!v2_target_parse(trk_req_param(req, "rest"), &state->target)) {
            state->target.kind = V2_NOTHING;
        }
        trk_req_set_user(req, state, state_fini);
    }
    return state;
}

/* ---- errors ---- */

int v2_fail(struct trk_request *req, enum trk_code code, const char *oci_code, struct trk_err *err,
            const char *fmt, ...)
{
    char text[TRK_ERR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    v2_state(req)->code = oci_code;
    return trk_err_set(err, code, "%s", text);
}

static json_t *errors_body(const char *oci_code, const char *message)
{
    json_t *text = json_string(message);
    return json_pack("{s:[{s:s, s:o, s:n}]}", "errors", "code", oci_code, "message",
                     text != NULL ? text : json_string("not valid UTF-8"), "detail");
}

static const char *code_of_status(int status)
{
    switch (status) {
    case 401:
        return "UNAUTHORIZED";
    case 403:
        return "DENIED";
    case 404:
        return "NAME_UNKNOWN";
    case 405:
        return "UNSUPPORTED";
    case 413:
        return "SIZE_INVALID";
    case 429:
        return "TOOMANYREQUESTS";
    default:
        return status >= 500 ? "UNKNOWN" : "BLOB_UPLOAD_INVALID";
    }
}

json_t *builder_error_reply(struct trk_request *req, int status, const struct trk_err *err,
                            json_t *body)
{
    (void)err;
    const struct trk_route *route = trk_req_route(req);
    if (route == NULL || strcmp(route->access, "registry") != 0) {
        return body;
    }
    (void)trk_reply_header(req, "Docker-Distribution-Api-Version", "registry/2.0");
    const struct v2_state *state = trk_req_user(req);
    const char *code = state != NULL && state->code != NULL ? state->code : code_of_status(status);
    json_t *errors = errors_body(code, json_string_value(json_object_get(body, "error")));
    json_decref(body);
    return errors;
}

int v2_reply_error(struct trk_request *req, int status, const char *oci_code, const char *message)
{
    return trk_reply_json(req, status, errors_body(oci_code, message));
}

int v2_unsupported(struct trk_request *req, struct trk_err *err)
{
    const struct v2_state *state = v2_state(req);
    if (state->target.kind == V2_NOTHING || state->target.kind == V2_REFERRERS) {
        return v2_fail(req, TRK_NOT_FOUND, "NAME_INVALID", err, "the registry has no such path");
    }
    return v2_fail(req, TRK_METHOD, "UNSUPPORTED", err, "the registry does not support %s here",
                   trk_req_method(req));
}

void v2_location(struct trk_request *req, const char *repository, const char *rest)
{
    (void)trk_reply_header(req, "Location",
                           talloc_asprintf(trk_req_mem(req), "/v2/%s/%s", repository, rest));
}

/* ---- lists ---- */

/* What of a sorted list the query's `last` and `n` ask for; a Link header leads to the rest. */
static json_t *page_of(struct trk_request *req, const json_t *list, const char *path)
{
    const char *last = trk_req_query(req, "last");
    int64_t n = trk_req_query_int(req, "n", LIST_PAGE_MAX);
    json_t *page = json_array();
    size_t i;
    json_t *item;
    json_array_foreach (list, i, item) {
        if (last != NULL && strcmp(json_string_value(item), last) <= 0) {
            continue;
        }
        if ((int64_t)json_array_size(page) >= n || json_array_size(page) == LIST_PAGE_MAX) {
            if (json_array_size(page) > 0) {
                const char *end = json_string_value(
                    json_array_get(page, json_array_size(page) - 1));
                (void)trk_reply_header(req, "Link",
                                       talloc_asprintf(trk_req_mem(req),
                                                       "</v2/%s?last=%s&n=%lld>; rel=\"next\"",
                                                       path, end, (long long)n));
            }
            break;
        }
        (void)json_array_append(page, item);
    }
    return page;
}

int v2_get_list(struct trk_request *req, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    const struct v2_target *target = &v2_state(req)->target;
    json_auto_t *list = NULL;
    if (trk_req_query_int(req, "n", 1) < 0) {
        return v2_fail(req, TRK_INVALID, "PAGINATION_NUMBER_INVALID", err,
                       "n must not be negative");
    }
    if (target->kind == V2_CATALOG) {
        int rc = store_repositories(ib->store, &list, err);
        return rc < 0 ? rc
                      : trk_reply_json(
                            req, 200,
                            json_pack("{s:o}", "repositories", page_of(req, list, "_catalog")));
    }
    int rc = store_tags(ib->store, target->repository, &list, err);
    if (rc == TRK_NOT_FOUND) {
        return v2_fail(req, TRK_NOT_FOUND, "NAME_UNKNOWN", err, "there is no repository %s",
                       target->repository);
    }
    if (rc < 0) {
        return rc;
    }
    const char *path = talloc_asprintf(trk_req_mem(req), "%s/tags/list", target->repository);
    return trk_reply_json(
        req, 200,
        json_pack("{s:s, s:o}", "name", target->repository, "tags", page_of(req, list, path)));
}

/* ---- routes ---- */

typedef int (*v2_handler)(struct trk_request *req, struct trk_err *err);

static int dispatch(struct trk_request *req, const v2_handler *by_kind, struct trk_err *err)
{
    v2_handler handler = by_kind[v2_state(req)->target.kind];
    (void)trk_reply_header(req, "Docker-Distribution-Api-Version", "registry/2.0");
    return handler == NULL ? v2_unsupported(req, err) : handler(req, err);
}

static int ping(struct trk_request *req, struct trk_err *err)
{
    (void)err;
    (void)trk_reply_header(req, "Docker-Distribution-Api-Version", "registry/2.0");
    return trk_reply_json(req, 200, json_object());
}

#define KINDS (V2_REFERRERS + 1)
static int on_get(struct trk_request *req, struct trk_err *err)
{
    static const v2_handler handlers[KINDS] = {
        [V2_CATALOG] = v2_get_list,  [V2_TAGS] = v2_get_list,         [V2_BLOB] = v2_get_blob,
        [V2_UPLOAD] = v2_get_upload, [V2_MANIFEST] = v2_get_manifest,
    };
    return dispatch(req, handlers, err);
}

static int on_post(struct trk_request *req, struct trk_err *err)
{
    static const v2_handler handlers[KINDS] = {[V2_UPLOADS] = v2_post_uploads};
    return dispatch(req, handlers, err);
}

static int on_patch(struct trk_request *req, struct trk_err *err)
{
    static const v2_handler handlers[KINDS] = {[V2_UPLOAD] = v2_patch_upload};
    return dispatch(req, handlers, err);
}

static int on_put(struct trk_request *req, struct trk_err *err)
{
    static const v2_handler handlers[KINDS] = {
        [V2_UPLOAD] = v2_put_upload, [V2_MANIFEST] = v2_put_manifest};
    return dispatch(req, handlers, err);
}

static int on_delete(struct trk_request *req, struct trk_err *err)
{
    static const v2_handler handlers[KINDS] = {[V2_UPLOAD] = v2_delete_upload,
                                               [V2_BLOB] = v2_delete_blob,
                                               [V2_MANIFEST] = v2_delete_manifest};
    return dispatch(req, handlers, err);
}

static int on_body(struct trk_request *req, const void *bytes, size_t len, struct trk_err *err)
{
    struct v2_state *state = v2_state(req);
    const char *method = trk_req_method(req);
    bool is_put = strcmp(method, "PUT") == 0;
    if (is_put && state->target.kind == V2_MANIFEST) {
        return v2_add_manifest_body(req, bytes, len, err);
    }
    if (((is_put || strcmp(method, "PATCH") == 0) && state->target.kind == V2_UPLOAD) ||
        (strcmp(method, "POST") == 0 && state->target.kind == V2_UPLOADS)) {
        return v2_add_upload_body(req, bytes, len, err);
    }
    return v2_unsupported(req, err);
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/v2/",
     .access = "registry",
     .handler = ping,
     .help = "Is this a registry, and is the token good? (distribution-spec 1.1)"},
    {.method = "GET",
     .path = "/v2/{rest:path}",
     .access = "registry",
     .query = "n:int=1000:entries of a list at most;last:string:entries after this one",
     .handler = on_get,
     .help = "{name}/manifests/{tag or digest}, {name}/blobs/{digest}, {name}/blobs/uploads/{id}, "
             "{name}/tags/list, _catalog."},
    {.method = "POST",
     .path = "/v2/{rest:path}",
     .access = "registry",
     .query = "digest:string:the whole blob is the body;mount:string:a blob that is here already;"
              "from:string:repository of the blob to mount",
     .handler = on_post,
     .on_body = on_body,
     .flags = TRK_ROUTE_STREAM_BODY,
     .body_max_bytes = BLOB_MAX,
     .help = "{name}/blobs/uploads/: begin an upload, send a blob whole, or mount one."},
    {.method = "PATCH",
     .path = "/v2/{rest:path}",
     .access = "registry",
     .handler = on_patch,
     .on_body = on_body,
     .flags = TRK_ROUTE_STREAM_BODY,
     .body_max_bytes = BLOB_MAX,
     .help = "{name}/blobs/uploads/{id}: a piece of a blob."},
    {.method = "PUT",
     .path = "/v2/{rest:path}",
     .access = "registry",
     .query = "digest:string:of the blob that the upload made",
     .handler = on_put,
     .on_body = on_body,
     .flags = TRK_ROUTE_STREAM_BODY,
     .body_max_bytes = BLOB_MAX,
     .help = "{name}/blobs/uploads/{id}: end an upload. {name}/manifests/{tag or digest}: a "
             "manifest."},
    {.method = "DELETE",
     .path = "/v2/{rest:path}",
     .access = "registry",
     .handler = on_delete,
     .help = "{name}/manifests/{tag or digest}, {name}/blobs/{digest}, {name}/blobs/uploads/{id}."},
};
const struct trk_route_table builder_registry_table = {"registry", routes, TRK_COUNT(routes)};
