#include <string.h>

#include "libtrack/base/mem.h"
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

static const struct dto_field event_fields[] = {
    {"id", DTO_TEXT, DTO_AT(struct audit_event, id)},
    {"version", DTO_INTEGER, DTO_AT(struct audit_event, version)},
    {"timestamp", DTO_TIME, DTO_AT(struct audit_event, timestamp)},
    {"event_type", DTO_TEXT, DTO_AT(struct audit_event, event_type)},
    {"properties", DTO_JSON, DTO_AT(struct audit_event, properties)},
    {"username_executor", DTO_TEXT, DTO_AT(struct audit_event, username_executor),
     .is_nullable = true},
    {"username_subject", DTO_TEXT, DTO_AT(struct audit_event, username_subject),
     .is_nullable = true},
    {"job_name", DTO_TEXT, DTO_AT(struct audit_event, job_name), .is_nullable = true},
    {"job_version", DTO_TEXT, DTO_AT(struct audit_event, job_version), .is_nullable = true},
};
const struct dto api_audit_event_dto = DTO("AuditEvent", struct audit_event, event_fields);

static int reply_events(struct trk_request *req, struct audit_filter filter, struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    const struct subject *who = api_subject(req);
    struct audit_event shown[AUDIT_MAX];
    size_t shown_count = 0, count = LOOKED_AT;
    int rc = api_acquire(req, &conn, err);
    filter.limit = LOOKED_AT;
    while (rc == 0 && count == LOOKED_AT && filter.offset < LOOK_AT_MAX &&
           shown_count < AUDIT_MAX) {
        struct audit_event *events;
        rc = audit_store_list(conn, trk_req_mem(req), &filter, &events, &count, err);
        for (size_t i = 0; rc == 0 && i < count && shown_count < AUDIT_MAX; i++) {
            if (may_see(who, &events[i])) {
                events[i].properties = shows_properties(who, &events[i]) ? events[i].properties
                                                                         : NULL;
                shown[shown_count++] = events[i];
            }
        }
        filter.offset += LOOKED_AT;
    }
    return rc < 0 ? rc : api_reply_dtos(req, &api_audit_event_dto, shown, shown_count);
}

/* NULL where the path names none. */
static struct audit_filter filter_of(struct trk_request *req)
{
    return (struct audit_filter){.job_name = trk_req_param(req, "name"),
                                 .job_version = trk_req_param(req, "version")};
}

static int get_events(struct trk_request *req, struct trk_err *err)
{
    return reply_events(req, filter_of(req), err);
}

static int get_user_events(struct trk_request *req, struct trk_err *err)
{
    struct audit_filter filter = filter_of(req);
    filter.related_to = api_subject(req)->name;
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
     .handler = get_events,
     .help = "The same for the jobs of one name."},
    {.method = "GET",
     .path = "/api/v1/audit/events/job/{name}/{version}",
     .access = "authenticated",
     .response_schema = API_LIST("AuditEvent"),
     .handler = get_events,
     .help = "The same for one job."},
    {.method = "GET",
     .path = "/api/v1/audit/user_events",
     .access = "user",
     .response_schema = API_LIST("AuditEvent"),
     .handler = get_user_events,
     .help = "The same where the caller did it or it was done to the caller."},
    {.method = "GET",
     .path = "/api/v1/audit/user_events/job/{name}",
     .access = "user",
     .response_schema = API_LIST("AuditEvent"),
     .handler = get_user_events,
     .help = "Those about the jobs of one name."},
    {.method = "GET",
     .path = "/api/v1/audit/user_events/job/{name}/{version}",
     .access = "user",
     .response_schema = API_LIST("AuditEvent"),
     .handler = get_user_events,
     .help = "Those about one job."},
};
API_TABLE(api_audit_routes, "audit", routes);
