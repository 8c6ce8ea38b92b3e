#include <stdio.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/version.h"
#include "lifecycle/api/api.h"
#include "lifecycle/config.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/call.h"

/* Questions about the token that asks. They are public routes: what is asked is whether it may. */

static const char *endpoint_param(struct trk_request *req)
{
    return talloc_asprintf(trk_req_mem(req), "/%s", trk_req_param(req, "endpoint"));
}

/* -- may this token call this path of this job? The original's gateway asks for every call -- */

static bool is_public(const struct call_question *question, const char *path)
{
    if (trk_endpoint_is_always_public(path)) {
        return true;
    }
    for (const char *line = question->public_endpoints; line != NULL && *line != '\0';) {
        size_t len = strcspn(line, "\n");
        char endpoint[513];
        (void)snprintf(endpoint, sizeof(endpoint), "%.*s", (int)len, line);
        if (trk_endpoint_is_below(path, endpoint)) {
            return true;
        }
        line += len + (line[len] == '\n');
    }
    return false;
}

/* Anybody may ask about a public path, and whoever may call a job need not read it: where it is,
 * not what is in it (the manifest holds its environment). */
struct decision {
    const struct job *job;
    const char *caller, *decision;
    int64_t valid_for_ms;
    const char *remote_gateway_url, *remote_gateway_token; /* always NULL: all jobs are near */
};
static const struct dto_field decision_fields[] = {
    {"job", DTO_OBJECT, DTO_AT(struct decision, job), .of = &api_job_dto},
    {"caller", DTO_TEXT, DTO_AT(struct decision, caller), .is_nullable = true},
    {"decision", DTO_TEXT, DTO_AT(struct decision, decision),
     .schema = "\"enum\":[\"any_path\",\"exact_path\"]"},
    {"valid_for_ms", DTO_INTEGER, DTO_AT(struct decision, valid_for_ms), .is_nullable = true},
    {"remote_gateway_url", DTO_TEXT, DTO_AT(struct decision, remote_gateway_url),
     .is_nullable = true},
    {"remote_gateway_token", DTO_TEXT, DTO_AT(struct decision, remote_gateway_token),
     .is_nullable = true},
};
const struct dto api_decision_dto = DTO("CallDecision", struct decision, decision_fields);

static int reply_decision(struct trk_request *req, const struct job *job,
                          const struct subject *caller, bool any_path)
{
    char name[600];
    struct decision d = {.job = job, .decision = any_path ? "any_path" : "exact_path"};
    if (caller != NULL) {
        (void)subject_describe(caller, name, sizeof(name));
        d.caller = name;
        d.valid_for_ms = caller->valid_for_ms;
    }
    return api_reply_dto(req, &api_decision_dto, &d);
}

/* In the words of the question: a refusal does not tell which version an alias means. */
static int refuse_call(struct trk_request *req, const struct subject *caller, const char *path,
                       struct trk_err *err)
{
    const char *name = trk_req_param(req, "name");
    const char *version = trk_req_param(req, "version");
    if (!api_lifecycle(req)->config->auth_debug) {
        return trk_err_set(err, TRK_FORBIDDEN, "no permission to call %s %s", name, version);
    }
    char who[600];
    (void)subject_describe(caller, who, sizeof(who));
    return trk_err_set(err, TRK_FORBIDDEN, "no permission: %s lacks the scope call_job on %s %s %s",
                       who, name, version, path);
}

static int ask(struct trk_request *req, struct trk_pg *conn, const struct trk_token *claims,
               struct call_question *ret, struct trk_err *err)
{
    const char *token = claims->type != TRK_SUBJECT_INTERNAL ? api_token_text(req) : NULL;
    int rc = call_store_ask(conn, trk_req_mem(req), trk_req_param(req, "name"),
                            trk_req_param(req, "version"), token, ret, err);
    return rc == 0 && ret->is_maintenance
               ? trk_err_set(err, TRK_UNAVAILABLE,
                             "Racetrack is in maintenance mode; try again when it is over")
               : rc;
}

static int get_can_call(struct trk_request *req, struct trk_err *err)
{
    const char *path = endpoint_param(req);
    bool is_anonymous = api_token_text(req) == NULL;
    struct trk_token claims = {.type = TRK_SUBJECT_INTERNAL};
    struct call_question q;
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = is_anonymous ? 0 : api_verify(req, &claims, err);
    if (rc == 0) {
        rc = api_acquire(req, &conn, err);
    }
    if (rc == 0) {
        rc = ask(req, conn, &claims, &q, err);
    }
    if (rc < 0) {
        return rc;
    }
    if (q.job != NULL && is_public(&q, path)) {
        return reply_decision(req, q.job, NULL, false);
    }
    if (is_anonymous) {
        return api_verify(req, &claims, err); /* says that there is no token */
    }
    if (q.caller == NULL && claims.type != TRK_SUBJECT_INTERNAL) {
        *err = q.caller_err;
        return err->code;
    }
    struct subject *caller;
    rc = api_caller_of(req, &claims, q.caller, &caller, err);
    if (rc < 0) {
        return rc;
    }
    if (q.job == NULL) {
        /* Who may not call the family does not learn which jobs there are. */
        *err = q.job_err;
        return subject_can(caller, SCOPE_CALL_JOB, trk_req_param(req, "name"), NULL, NULL)
                   ? err->code
                   : refuse_call(req, caller, path, err);
    }
    bool any_path = subject_can(caller, SCOPE_CALL_JOB, q.job->name, q.job->version, NULL);
    if (!any_path && !subject_can(caller, SCOPE_CALL_JOB, q.job->name, q.job->version, path)) {
        return refuse_call(req, caller, path, err);
    }
    return reply_decision(req, q.job, caller, any_path);
}

/* -- is this token allowed …? 202, or the refusal -- */

static int answer_allowed(struct trk_request *req, const char *endpoint, struct trk_err *err)
{
    const char *scope;
    const char *name = trk_req_param(req, "name");
    const char *version = trk_req_param(req, "version");
    trk_pg_auto struct trk_pg *conn = NULL;
    struct subject *who = NULL;
    struct job *job = NULL;
    int rc = api_scope_param(req, &scope, err);
    if (rc == 0) {
        rc = api_authenticate(req, &conn, &who, err);
    }
    if (rc == 0) {
        rc = job_store_resolve(conn, trk_req_mem(req), name, version, &job, err);
    }
    bool is_allowed = rc == 0 && subject_can(who, scope, job->name, job->version, endpoint);
    /* Of a job that is not there hears who would be allowed, had it one. */
    bool is_refused = rc == 0 ? !is_allowed
                              : rc == TRK_NOT_FOUND && !subject_can(who, scope, name, NULL, NULL);
    if (is_refused) {
        return trk_err_set(err, TRK_FORBIDDEN,
                           "no permission to do this operation: %s on %s %s%s%s", scope, name,
                           version, endpoint != NULL ? " " : "", endpoint != NULL ? endpoint : "");
    }
    return is_allowed ? trk_reply_empty(req, 202) : rc;
}

static int get_allowed(struct trk_request *req, struct trk_err *err)
{
    return answer_allowed(req, NULL, err);
}

static int get_allowed_endpoint(struct trk_request *req, struct trk_err *err)
{
    return answer_allowed(req, endpoint_param(req), err);
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/api/v1/auth/can-call-job/{name}/{version}/{endpoint:path}",
     .access = "public",
     .response_schema = API_REF("CallDecision"),
     .handler = get_can_call,
     .help = "May the caller's token call this path of this job? With the job to forward to. "
             "decision: any_path holds for every path of the job. valid_for_ms: when the "
             "caller's token expires; null: it does not."},
    {.method = "GET",
     .path = "/api/v1/auth/allowed/job/{name}/{version}/scope/{scope}",
     .access = "public",
     .handler = get_allowed,
     .help = "202 when the caller's token holds the scope on the job."},
    {.method = "GET",
     .path = "/api/v1/auth/allowed/job_endpoint/{name}/{version}/scope/{scope}/endpoint/"
             "{endpoint:path}",
     .access = "public",
     .handler = get_allowed_endpoint,
     .help = "202 when the caller's token holds the scope on that path of the job."},
};
API_TABLE(api_auth_routes, "auth", routes);
