#include <string.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/version.h"
#include "lifecycle/api/api.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/event.h"
#include "lifecycle/store/setting.h"
#include "lifecycle/store/subject.h"

struct lifecycle *api_lifecycle(struct trk_request *req)
{
    return trk_req_ctx(req);
}

struct subject *api_subject(struct trk_request *req)
{
    const struct api_caller *caller = trk_req_subject(req);
    return caller->subject;
}

const char *api_job_version(struct trk_request *req)
{
    const struct api_caller *caller = trk_req_subject(req);
    return caller->job_version;
}

int api_acquire(struct trk_request *req, struct trk_pg **ret, struct trk_err *err)
{
    struct lifecycle *lc = api_lifecycle(req);
    if (!atomic_load(&lc->is_started)) {
        return trk_err_set(err, TRK_UNAVAILABLE, "%s",
                           trk_pg_pool_is_up(lc->pool)
                               ? "lifecycle is starting, try again in a moment"
                               : "database is not reachable, lifecycle is waiting for it");
    }
    return trk_pg_acquire(lc->pool, ret, err);
}

int api_transaction(struct trk_request *req,
                    int (*fn)(struct trk_pg *conn, void *ctx, struct trk_err *err), void *ctx,
                    struct trk_err *err)
{
    return trk_pg_transaction(api_lifecycle(req)->pool, fn, ctx, err);
}

struct audited {
    const struct api_deed *deed;
    const char *executor;
    int (*fn)(struct trk_pg *conn, void *ctx, struct trk_err *err);
    void *ctx;
};

static int run_audited(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    const struct audited *a = ctx;
    const struct api_deed *d = a->deed;
    int rc = a->fn(conn, a->ctx, err);
    return rc < 0 ? rc
                  : audit_store_add(conn, d->event_type, a->executor, d->username_subject,
                                    d->job_name, d->job_version, d->properties, err);
}

int api_transaction_audited(struct trk_request *req, const struct api_deed *deed,
                            int (*fn)(struct trk_pg *conn, void *ctx, struct trk_err *err),
                            void *ctx, struct trk_err *err)
{
    char name[2200];
    struct audited a = {.deed = deed, .executor = deed->executor, .fn = fn, .ctx = ctx};
    if (a.executor == NULL) {
        const struct subject *who = api_subject(req);
        (void)subject_describe(who, name, sizeof(name));
        a.executor = who->type == TRK_SUBJECT_USER ? who->name : name;
    }
    int rc = api_transaction(req, run_audited, &a, err);
    json_decref(deed->properties);
    return rc;
}

int api_refuse_in_maintenance(struct trk_request *req, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = api_acquire(req, &conn, err);
    return rc < 0 ? rc : setting_store_refuse_in_maintenance(conn, err);
}

const char *api_token_text(struct trk_request *req)
{
    static const char *const headers[] = {
        "X-Racetrack-Auth",
        "X-Racetrack-User-Auth",
        "X-Racetrack-Esc-Auth",
    };
    for (size_t i = 0; i < TRK_COUNT(headers); i++) {
        const char *text = trk_req_header(req, headers[i]);
        if (!trk_str_is_empty(text)) {
            return text;
        }
    }
    return NULL;
}

int api_verify(struct trk_request *req, struct trk_token *ret, struct trk_err *err)
{
    const char *text = api_token_text(req);
    return text != NULL ? trk_jwt_verify(text, api_lifecycle(req)->auth_key, ret, err)
                        : trk_err_set(err, TRK_UNAUTHENTICATED,
                                      "auth token not found in a header X-Racetrack-Auth");
}

int api_caller_of(struct trk_request *req, const struct trk_token *claims, struct subject *known,
                  struct subject **ret, struct trk_err *err)
{
    void *mem = trk_req_mem(req);
    struct subject *subject = known;
    if (claims->type == TRK_SUBJECT_INTERNAL) {
        subject = talloc_zero(mem, struct subject);
        subject->type = TRK_SUBJECT_INTERNAL;
    } else if (!subject->is_active) {
        return trk_err_set(err, TRK_UNAUTHENTICATED,
                           "this user is not active; an administrator has to activate it");
    }
    subject->is_active = true;
    subject->claims = *claims;
    if (subject->name == NULL) {
        subject->name = talloc_strdup(mem, claims->subject);
    }
    subject->token = api_token_text(req);
    *ret = subject;
    return 0;
}

int api_authenticate(struct trk_request *req, struct trk_pg **ret_conn, struct subject **ret,
                     struct trk_err *err)
{
    struct trk_token claims;
    struct subject *known = NULL;
    int rc = api_verify(req, &claims, err); /* needs no database */
    if (rc == 0) {
        rc = api_acquire(req, ret_conn, err);
    }
    if (rc == 0 && claims.type != TRK_SUBJECT_INTERNAL) {
        rc = subject_store_by_token(*ret_conn, trk_req_mem(req), api_token_text(req), &known, err);
    }
    return rc < 0 ? rc : api_caller_of(req, &claims, known, ret, err);
}

static int wrong_type(const struct subject *subject, const char *wanted, struct trk_err *err)
{
    char who[600];
    (void)subject_describe(subject, who, sizeof(who));
    return trk_err_set(err, TRK_FORBIDDEN,
                       "wrong subject type to do this operation: it takes %s, this is %s", wanted,
                       who);
}

static int no_permission(const struct subject *subject, const char *scope, const char *on,
                         struct trk_err *err)
{
    char who[600];
    (void)subject_describe(subject, who, sizeof(who));
    return trk_err_set(err, TRK_FORBIDDEN,
                       "no permission to do this operation: %s lacks the scope %s on %s", who,
                       scope, on);
}

static int check_scope(const struct subject *subject, const char *scope, struct trk_err *err)
{
    /* What stands above jobs takes a permission that stands above jobs: full access to one job must
     * not be enough for the admin API. */
    if (strcmp(scope, SCOPE_CALL_ADMIN_API) == 0) {
        return subject_can_everywhere(subject, scope)
                   ? 0
                   : no_permission(subject, scope, "everything", err);
    }
    return subject_can_somewhere(subject, scope) ? 0
                                                 : no_permission(subject, scope, "any job", err);
}

/* Who may not do it does not learn which jobs there are, nor what an alias means. */
static int check_job(struct trk_request *req, struct trk_pg *conn, struct api_caller *caller,
                     const char *scope, struct trk_err *err)
{
    const char *name = trk_req_param(req, "name");
    const char *version = trk_req_param(req, "version");
    const char *meant = version; /* NULL: there is none, the family decides */
    int rc = 0;
    if (trk_version_is_alias(version)) {
        struct job *job;
        rc = job_store_resolve(conn, trk_req_mem(req), name, version, &job, err);
        meant = rc == 0 ? job->version : NULL;
    }
    if (rc < 0 && rc != TRK_NOT_FOUND) {
        return rc;
    }
    if (!subject_can(caller->subject, scope, name, meant, NULL)) {
        char on[600];
        (void)snprintf(on, sizeof(on), "%s %s", name, version);
        return no_permission(caller->subject, scope, on, err);
    }
    caller->job_version = meant;
    return rc;
}

static int check_access(struct trk_request *req, struct trk_pg *conn, struct api_caller *caller,
                        const char *access, struct trk_err *err)
{
    const struct subject *subject = caller->subject;
    bool internal = subject->type == TRK_SUBJECT_INTERNAL;
    bool user = subject->type == TRK_SUBJECT_USER;
    if (strcmp(access, "authenticated") == 0) {
        return !internal || subject->claims.scope_count > 0
                   ? 0
                   : no_permission(subject, "full_access", "anything", err);
    }
    if (strcmp(access, "subject") == 0) {
        return internal ? wrong_type(subject, "a user, an ESC or a job family", err) : 0;
    }
    if (strcmp(access, "user") == 0) {
        return user ? 0 : wrong_type(subject, "a user", err);
    }
    if (strcmp(access, "staff") == 0) {
        return user && subject->is_staff ? 0 : wrong_type(subject, "a user of the staff", err);
    }
    if (strcmp(access, "admin") == 0) {
        return user && subject->is_staff ? 0 : check_scope(subject, SCOPE_CALL_ADMIN_API, err);
    }
    if (strcmp(access, "internal") == 0) {
        return internal && trk_token_has_scope(&subject->claims, SCOPE_FULL_ACCESS)
                   ? 0
                   : wrong_type(subject, "a service of Racetrack with full access", err);
    }
    if (trk_str_has_prefix(access, "scope:")) {
        return check_scope(subject, access + strlen("scope:"), err);
    }
    if (trk_str_has_prefix(access, "job:")) {
        return check_job(req, conn, caller, access + strlen("job:"), err);
    }
    trk_die("unknown access rule \"%s\"", access);
}

int api_authorize(struct trk_request *req, const char *access, struct trk_err *err)
{
    struct api_caller *caller = talloc_zero(trk_req_mem(req), struct api_caller);
    trk_req_set_subject(req, caller);
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = api_authenticate(req, &conn, &caller->subject, err);
    return rc < 0 ? rc : check_access(req, conn, caller, access, err);
}

int api_scope_param(struct trk_request *req, const char **ret, struct trk_err *err)
{
    const char *text = trk_req_param(req, "scope");
    const char *scope = scope_canonical(text);
    if (scope == NULL) {
        return trk_err_set(err, TRK_INVALID,
                           "unknown scope %s; known are read_job, deploy_job, deploy_new_family, "
                           "delete_job, call_job, call_admin_api, full_access",
                           text);
    }
    *ret = scope;
    return 0;
}
