#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/api.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/event.h"

#define AUDIT_MAX 100

/* Why a deployment failed is told with the job's own output: to who may read the job, and to who
 * deployed it. */
static bool shows_properties(const struct subject *subject, const struct audit_event *e)
{
    return e->job_name == NULL ||
           subject_can(subject, SCOPE_READ_JOB, e->job_name, e->job_version, NULL) ||
           (subject->type == TRK_SUBJECT_USER && e->username_executor != NULL &&
            strcmp(e->username_executor, subject->name) == 0);
}

static json_t *properties_json(const char *text)
{
    json_t *value = NULL;
    if (text == NULL || trk_json_parse(text, strlen(text), &value, NULL) < 0) {
        return json_null();
    }
    return value;
}

static int reply_events(struct trk_request *req, const struct audit_filter *filter,
                        struct trk_err *err)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct audit_event *events;
    size_t count;
    int code = api_acquire(req, &conn, err);
    if (code == 0) {
        code = audit_store_list(conn, trk_req_mem(req), filter, &events, &count, err);
    }
    if (code < 0) {
        return code;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        const struct audit_event *e = &events[i];
        (void)json_array_append_new(
            list,
            json_pack("{s:s,s:I,s:I,s:s,s:o,s:s?,s:s?,s:s?,s:s?}", "id", e->id, "version",
                      (json_int_t)e->version, "timestamp", (json_int_t)e->timestamp, "event_type",
                      e->event_type, "properties",
                      properties_json(shows_properties(api_subject(req), e) ? e->properties : NULL),
                      "username_executor", e->username_executor, "username_subject",
                      e->username_subject, "job_name", e->job_name, "job_version", e->job_version));
    }
    return trk_reply_json(req, 200, list);
}

static int get_events(struct trk_request *req, struct trk_err *err)
{
    const struct audit_filter filter = {.limit = AUDIT_MAX};
    return reply_events(req, &filter, err);
}

static int get_family_events(struct trk_request *req, struct trk_err *err)
{
    const struct audit_filter filter = {.limit = AUDIT_MAX, .job_name = trk_req_param(req, "name")};
    return reply_events(req, &filter, err);
}

static int get_job_events(struct trk_request *req, struct trk_err *err)
{
    const struct audit_filter filter = {.limit = AUDIT_MAX,
                                        .job_name = trk_req_param(req, "name"),
                                        .job_version = trk_req_param(req, "version")};
    return reply_events(req, &filter, err);
}

static int get_user_events(struct trk_request *req, struct trk_err *err)
{
    const struct audit_filter filter = {.limit = AUDIT_MAX, .related_to = api_subject(req)->name};
    return reply_events(req, &filter, err);
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/api/v1/audit/events",
     .access = "authenticated",
     .response_schema = API_LIST("AuditEvent"),
     .handler = get_events,
     .help = "What was done lately: the last hundred events, newest first."},
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
