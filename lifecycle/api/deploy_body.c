#include "lifecycle/api/deploy_body.h"

#include <stdatomic.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/data/json_split.h"
#include "lifecycle/api/api.h"
#include "lifecycle/config.h"
#include "lifecycle/domain/permission.h"

#define TEXT_MAX  ((size_t)2 << 20)  /* of one request without its context */
#define TEXTS_MAX ((size_t)16 << 20) /* of all requests together */

struct deploy_body {
    struct trk_request *req;
    struct trk_json_split split;
    struct trk_base64 base64;
    struct context context;
    size_t text_len;
};
static atomic_size_t texts_len;

static void body_fini(void *user)
{
    struct deploy_body *body = user;
    (void)atomic_fetch_sub(&texts_len, body->text_len);
    context_fini(&body->context);
    free(body);
}

static int keep_text(void *ctx, const char *bytes, size_t len, struct trk_err *err)
{
    struct deploy_body *body = ctx;
    size_t all = atomic_fetch_add(&texts_len, len) + len;
    body->text_len += len;
    if (body->text_len > TEXT_MAX) {
        return trk_err_set(err, TRK_TOO_LARGE,
                           "the request body without its build_context is larger than %s",
                           trk_size_text(TEXT_MAX).text);
    }
    if (all > TEXTS_MAX) {
        return trk_err_set(err, TRK_UNAVAILABLE, "too many deployments are being submitted");
    }
    return trk_req_keep_body(body->req, bytes, len, err);
}

static int keep_context(void *ctx, const char *text, size_t len, struct trk_err *err)
{
    struct deploy_body *body = ctx;
    const struct lifecycle_config *config = api_lifecycle(body->req)->config;
    char bytes[16384];
    int rc = body->context.fd < 0 ? context_begin(config->state_dir, &body->context, err) : 0;
    while (rc == 0 && len > 0) {
        size_t piece = len < sizeof(bytes) ? len : sizeof(bytes);
        size_t n = 0;
        rc = trk_base64_feed(&body->base64, text, piece, bytes, &n, err);
        rc = rc < 0 ? trk_err_wrap(err, "build_context")
                    : context_add(&body->context, bytes, n, config->deploy_spool_max_bytes, err);
        text += piece;
        len -= piece;
    }
    return rc;
}

static int may_deploy_something(struct trk_request *req, struct trk_err *err)
{
    const struct subject *who = api_subject(req);
    char name[600];
    if (subject_can_somewhere(who, SCOPE_DEPLOY_JOB) ||
        subject_can_somewhere(who, SCOPE_DEPLOY_NEW_FAMILY)) {
        return 0;
    }
    (void)subject_describe(who, name, sizeof(name));
    return trk_err_set(err, TRK_FORBIDDEN,
                       "no permission to do this operation: %s may deploy no job at all; it takes "
                       "the scope deploy_job or deploy_new_family",
                       name);
}

int deploy_body_add(struct trk_request *req, const void *bytes, size_t len, struct trk_err *err)
{
    struct deploy_body *body = trk_req_user(req);
    if (body == NULL) {
        int rc = may_deploy_something(req, err);
        if (rc < 0) {
            return rc;
        }
        body = trk_xcalloc(1, sizeof(*body));
        *body = (struct deploy_body){.req = req, .context = CONTEXT_NONE};
        body->split = (struct trk_json_split){
            .member = "build_context", .on_text = keep_text, .on_value = keep_context, .ctx = body};
        trk_req_set_user(req, body, body_fini);
    }
    return trk_json_split_feed(&body->split, bytes, len, err);
}

int deploy_body_context(struct trk_request *req, struct context **ret, struct trk_err *err)
{
    struct deploy_body *body = trk_req_user(req);
    const json_t *left = json_object_get(trk_req_json(req), "build_context");
    int rc = 0;
    if (!json_is_string(left)) {
        *ret = NULL;
        return 0;
    }
    if (body->context.fd < 0 || json_string_length(left) > 0) { /* the latter: an escaped name */
        rc = trk_err_set(err, TRK_INVALID,
                         "it is empty: send a tar.gz in base64, or null to have git.remote cloned");
    } else {
        rc = trk_base64_end(&body->base64, err);
    }
    if (rc < 0) {
        return trk_err_wrap(err, "build_context");
    }
    context_end(&body->context);
    *ret = &body->context;
    return 0;
}
