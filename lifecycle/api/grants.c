#include "libtrack/mem.h"
#include "lifecycle/api/api.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/esc.h"
#include "lifecycle/store/subject.h"

struct grant {
    void *mem;
    const char *esc_id;        /* either this … */
    const char *source_family; /* … or this gets the permission */
    const char *family, *scope;
};

static int run_grant(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct grant *g = ctx;
    const char *family_id;
    const char *owner_id;
    const char *subject_id;
    int code = family_store_get(conn, g->mem, g->family, &family_id, err);
    if (code < 0) {
        return code;
    }
    if (g->esc_id != NULL) {
        struct esc *esc;
        code = esc_store_get(conn, g->mem, g->esc_id, &esc, err);
        owner_id = g->esc_id;
    } else {
        code = family_store_get(conn, g->mem, g->source_family, &owner_id, err);
    }
    if (code == 0) {
        code = subject_store_ensure(conn, g->mem,
                                    g->esc_id != NULL ? TRK_SUBJECT_ESC : TRK_SUBJECT_JOB_FAMILY,
                                    owner_id, &subject_id, err);
    }
    return code < 0
               ? code
               : permission_store_grant(conn, subject_id, g->scope, family_id, NULL, NULL, err);
}

static int do_grant(struct trk_request *req, struct grant *g, struct trk_err *err)
{
    g->mem = trk_req_mem(req);
    int code = api_scope_param(req, &g->scope, err);
    if (code == 0) {
        code = api_transaction(req, run_grant, g, err);
    }
    return code < 0 ? code : trk_reply_null(req);
}

static int post_esc_grant(struct trk_request *req, struct trk_err *err)
{
    struct grant g = {.esc_id = trk_req_param(req, "id"), .family = trk_req_param(req, "family")};
    return do_grant(req, &g, err);
}

static int post_family_grant(struct trk_request *req, struct trk_err *err)
{
    struct grant g = {.source_family = trk_req_param(req, "source"),
                      .family = trk_req_param(req, "family")};
    return do_grant(req, &g, err);
}

static const struct trk_route routes[] = {
    {.method = "POST",
     .path = "/api/v1/auth/allow/esc/{id}/job/{family}/scope/{scope}",
     .access = "scope:" SCOPE_CALL_ADMIN_API,
     .handler = post_esc_grant,
     .help = "Grants an external service consumer a scope on a job family."},
    {.method = "POST",
     .path = "/api/v1/auth/allow/job_family/{source}/job/{family}/scope/{scope}",
     .access = "scope:" SCOPE_CALL_ADMIN_API,
     .handler = post_family_grant,
     .help = "Grants the jobs of one family a scope on another family."},
};
API_TABLE(api_grant_routes, "grants", routes);
