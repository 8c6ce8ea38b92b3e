#include <string.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/api.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/event.h"

#define AUDIT_MAX   100
#define LOOKED_AT   500   /* rows at once */
#define LOOK_AT_MAX 20000 /* rows for one answer */

static bool is_name(const char *text, const char *name)
{
    return text != NULL && strcmp(text, name) == 0;
}

/* What concerns a job is told to who may read it; the rest to administrators. Who did something, or
 * had it done to them, sees that. */
static bool may_see(const struct subject *who, const struct audit_event *e)
{
    if (who->type == TRK_SUBJECT_USER &&
        (who->is_staff || is_name(e->username_executor, who->name) ||
         is_name(e->username_subject, who->name))) {
        return true;
    }
    return (e->job_name != NULL &&
            subject_can(who, SCOPE_READ_JOB, e->job_name, e->job_version, NULL)) ||
           subject_can_everywhere(who, SCOPE_CALL_ADMIN_API);
}

/* Why a deployment failed is told with the job's own output: to who may read the job, and to who
 * deployed it. */
static bool shows_properties(const struct subject *who, const struct audit_event *e)
{
    return e->job_name == NULL ||
           subject_can(who, SCOPE_READ_JOB, e->job_name, e->job_version, NULL) ||
           (who->type == TRK_SUBJECT_USER && is_name(e->username_executor, who->name));
}

static json_t *event_json(const struct subject *who, const struct audit_event *e)
{
    json_t *properties = NULL;
    if (!shows_properties(who, e) ||
        trk_json_parse(e->properties, strlen(e->properties), &properties, NULL) < 0) {
        properties = json_object();
    }
    return json_pack("{s:s,s:I,s:I,s:s,s:o,s:s?,s:s?,s:s?,s:s?}", "id", e->id, "version",
                     (json_int_t)e->version, "timestamp", (json_int_t)e->timestamp, "event_type",
                     e->event_type, "properties", properties, "username_executor",
                     e->username_executor, "username_subject", e->username_subject, "job_name",
                     e->job_name, "job_version", e->job_version);
}

static int reply_events(struct trk_request *req, struct audit_filter filter, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    int code = api_acquire(req, &conn, err);
    json_auto_t *list = json_array();
    filter.limit = LOOKED_AT;
    size_t count = LOOKED_AT;
    while (code == 0 && count == LOOKED_AT && filter.offset < LOOK_AT_MAX &&
           json_array_size(list) < AUDIT_MAX) {
        void *mem = talloc_new(trk_req_mem(req));
        struct audit_event *events;
        code = audit_store_list(conn, mem, &filter, &events, &count, err);
        for (size_t i = 0; code == 0 && i < count && json_array_size(list) < AUDIT_MAX; i++) {
            if (may_see(api_subject(req), &events[i])) {
                (void)json_array_append_new(list, event_json(api_subject(req), &events[i]));
            }
        }
        filter.offset += LOOKED_AT;
        talloc_free(mem);
    }
    return code < 0 ? code : trk_reply_json(req, 200, TRK_STEAL(list));
}

static int get_events(struct trk_request *req, struct trk_err *err)
{
    return reply_events(req, (struct audit_filter){0}, err);
}

static int get_family_events(struct trk_request *req, struct trk_err *err)
{
    const struct audit_filter filter = {.job_name = trk_req_param(req, "name")};
    return reply_events(req, filter, err);
}

static int get_job_events(struct trk_request *req, struct trk_err *err)
{
    const struct audit_filter filter = {.job_name = trk_req_param(req, "name"),
                                        .job_version = trk_req_param(req, "version")};
    return reply_events(req, filter, err);
}

static int get_user_events(struct trk_request *req, struct trk_err *err)
{
    const struct audit_filter filter = {.related_to = api_subject(req)->name};
    return reply_events(req, filter, err);
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/api/v1/audit/events",
     .access = "authenticated",
     .response_schema = API_LIST("AuditEvent"),
     .handler = get_events,
     .help =
         "What was done lately: the last hundred events that the caller may know, newest first."},
    {.method = "GET",
     .path = "/api/v1/audit/events/job/{name}",
     .access = "authenticated",
     .response_schema = API_LIST("AuditEvent"),
     .handler = get_family_events,
     .help = "The same for the jobs of one name."},
    {.method = "GET",
     .path = "/api/v1/audit/events/job/{name}/{version}",
     .access = "authenticated",
     .response_schema = API_LIST("AuditEvent"),
     .handler = get_job_events,
     .help = "The same for one job."},
    {.method = "GET",
     .path = "/api/v1/audit/user_events",
     .access = "user",
     .response_schema = API_LIST("AuditEvent"),
     .handler = get_user_events,
     .help = "The same where the caller did it or it was done to the caller."},
};
API_TABLE(api_audit_routes, "audit", routes);
