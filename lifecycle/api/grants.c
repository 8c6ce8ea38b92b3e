#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/api.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/esc.h"
#include "lifecycle/store/subject.h"

struct grant {
    void *mem;
    const char *esc_id;        /* either this … */
    const char *source_family; /* … or this gets the permission */
    const char *family, *scope;
    bool is_revoked;
    const char *family_id, *subject_id;
    const char *holder; /* the ESC's or the family's name */
};

static int find(struct trk_pg *conn, struct grant *g, struct trk_err *err)
{
    const char *owner_id = g->esc_id;
    int rc = family_store_get(conn, g->mem, g->family, &g->family_id, err);
    if (rc < 0) {
        return rc;
    }
    if (g->esc_id != NULL) {
        struct esc *esc;
        rc = esc_store_get(conn, g->mem, g->esc_id, &esc, err);
        g->holder = rc == 0 ? esc->name : NULL;
    } else {
        rc = family_store_get(conn, g->mem, g->source_family, &owner_id, err);
        g->holder = g->source_family;
    }
    enum trk_subject_type type = g->esc_id != NULL ? TRK_SUBJECT_ESC : TRK_SUBJECT_JOB_FAMILY;
    return rc < 0 ? rc : subject_store_ensure(conn, g->mem, type, owner_id, &g->subject_id, err);
}

static int run_grant(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct grant *g = ctx;
    int rc = find(conn, g, err);
    if (rc < 0) {
        return rc;
    }
    if (!g->is_revoked) {
        return permission_store_grant(conn, g->subject_id, g->scope, g->family_id, NULL, NULL, err);
    }
    rc = permission_store_revoke(conn, g->subject_id, g->scope, g->family_id, NULL, NULL, err);
    return rc == TRK_NOT_FOUND
               ? trk_err_set(err, TRK_NOT_FOUND, "%s %s has no grant of %s on job family %s",
                             g->esc_id != NULL ? "ESC" : "job family", g->holder, g->scope,
                             g->family)
               : rc;
}

static int do_grant(struct trk_request *req, bool is_revoked, struct trk_err *err)
{
    struct grant g = {
        .mem = trk_req_mem(req),
        .esc_id = trk_req_param(req, "id"),
        .source_family = trk_req_param(req, "source"),
        .family = trk_req_param(req, "family"),
        .is_revoked = is_revoked,
    };
    int rc = api_scope_param(req, &g.scope, err);
    if (rc == 0) {
        const struct api_deed deed = {
            .event_type = is_revoked ? "permission_revoked" : "permission_granted",
            .job_name = g.family,
            .properties = json_pack("{s:s,s:s?,s:s?}", "scope", g.scope, "esc_id", g.esc_id,
                                    "job_family", g.source_family)};
        rc = api_transaction_audited(req, &deed, run_grant, &g, err);
    }
    return rc < 0 ? rc : trk_reply_null(req);
}

static int post_grant(struct trk_request *req, struct trk_err *err)
{
    return do_grant(req, false, err);
}

static int delete_grant(struct trk_request *req, struct trk_err *err)
{
    return do_grant(req, true, err);
}

static void write_type(struct trk_buf *out, const void *object, const void *ctx)
{
    (void)ctx;
    const struct permission_holder *h = object;
    const char *name = trk_subject_type_name(h->type);
    (void)trk_json_add_string(out, name, strlen(name));
}

static const struct dto_field holder_fields[] = {
    {"subject_type", DTO_TEXT, .write = write_type,
     .schema = "\"enum\":[\"user\",\"esc\",\"job_family\"]"},
    {"subject", DTO_TEXT, DTO_AT(struct permission_holder, name)},
    {"esc_id", DTO_TEXT, DTO_AT(struct permission_holder, esc_id), .is_nullable = true},
    {"scope", DTO_TEXT, DTO_AT(struct permission_holder, permission.scope)},
    {"job_family", DTO_TEXT, DTO_AT(struct permission_holder, permission.family_name),
     .is_nullable = true},
    {"job_version", DTO_TEXT, DTO_AT(struct permission_holder, permission.job_version),
     .is_nullable = true},
    {"endpoint", DTO_TEXT, DTO_AT(struct permission_holder, permission.endpoint),
     .is_nullable = true},
};
const struct dto api_permission_dto = DTO("Permission", struct permission_holder, holder_fields);

static int list_grants(struct trk_request *req, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    const char *family_id;
    struct permission_holder *holders;
    size_t count;
    int rc = api_acquire(req, &conn, err);
    if (rc == 0) {
        rc = family_store_get(conn, trk_req_mem(req), trk_req_param(req, "family"), &family_id,
                              err);
    }
    if (rc == 0) {
        rc = permission_store_holders(conn, trk_req_mem(req), family_id, &holders, &count, err);
    }
    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < count; i++) { /* a grant on one job is one on its family too */
        struct permission *p = &holders[i].permission;
        p->family_name = p->family_name != NULL ? p->family_name : p->job_name;
    }
    return api_reply_dtos(req, &api_permission_dto, holders, count);
}

static const struct trk_route routes[] = {
    {.method = "POST",
     .path = "/api/v1/auth/allow/esc/{id}/job/{family}/scope/{scope}",
     .access = "scope:" SCOPE_CALL_ADMIN_API,
     .handler = post_grant,
     .help = "Grants an external service consumer a scope on a job family."},
    {.method = "DELETE",
     .path = "/api/v1/auth/allow/esc/{id}/job/{family}/scope/{scope}",
     .access = "scope:" SCOPE_CALL_ADMIN_API,
     .handler = delete_grant,
     .help = "Takes that grant back; calls with it are refused within a second."},
    {.method = "POST",
     .path = "/api/v1/auth/allow/job_family/{source}/job/{family}/scope/{scope}",
     .access = "scope:" SCOPE_CALL_ADMIN_API,
     .handler = post_grant,
     .help = "Grants the jobs of one family a scope on another family."},
    {.method = "DELETE",
     .path = "/api/v1/auth/allow/job_family/{source}/job/{family}/scope/{scope}",
     .access = "scope:" SCOPE_CALL_ADMIN_API,
     .handler = delete_grant,
     .help = "Takes that grant back; calls with it are refused within a second."},
    {.method = "GET",
     .path = "/api/v1/auth/allow/job/{family}",
     .access = "scope:" SCOPE_CALL_ADMIN_API,
     .response_schema = API_LIST("Permission"),
     .handler = list_grants,
     .help = "Who may do what on a job family: grants on it, on one version of it, and on all."},
};
API_TABLE(api_grant_routes, "grants", routes);
