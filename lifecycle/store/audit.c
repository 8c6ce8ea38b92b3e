#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/store/event.h"
#include "lifecycle/store/rows.h"

int audit_store_add(struct trk_pg *conn, const char *event_type, const char *username_executor,
                    const char *username_subject, const char *job_name, const char *job_version,
                    const json_t *properties, struct trk_err *err)
{
    char id[TRK_UUID_SIZE];
    trk_uuid4(id);
    trk_autofree char *text = properties != NULL ? trk_json_text(properties) : trk_xstrdup("{}");
    return trk_pg_query(conn, NULL, err,
                        "insert into registry_auditlogevent (id, event_type, properties, "
                        "username_executor, username_subject, job_name, job_version) values ($1, "
                        "$2, $3, $4, $5, $6, $7)",
                        "sssssss", id, event_type, text, username_executor, username_subject,
                        job_name, job_version);
}

int audit_store_list(struct trk_pg *conn, void *mem, const struct audit_filter *filter,
                     struct audit_event **ret, size_t *ret_count, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(
        conn, &res, err,
        "select id, version, extract(epoch from timestamp)::bigint as time, event_type, "
        "properties, username_executor, username_subject, job_name, job_version from "
        "registry_auditlogevent where ($1::text is null or job_name = $1) and ($2::text is null or "
        "job_version = $2) and ($3::text is null or username_executor = $3 or username_subject = "
        "$3) order by timestamp desc, id limit $4 offset $5",
        "sssii", filter->job_name, filter->job_version, filter->related_to, filter->limit,
        filter->offset);
    if (rc < 0) {
        return rc;
    }
    int count = trk_pg_rows(res);
    struct audit_event *events = row_array(mem, struct audit_event, count);
    for (int row = 0; row < count; row++) {
        events[row] = (struct audit_event){
            .id = row_text(events, res, row, "id"),
            .version = trk_pg_int(res, row, "version"),
            .timestamp = trk_pg_int(res, row, "time"),
            .event_type = row_text(events, res, row, "event_type"),
            .properties = row_text(events, res, row, "properties"),
            .username_executor = row_text(events, res, row, "username_executor"),
            .username_subject = row_text(events, res, row, "username_subject"),
            .job_name = row_text(events, res, row, "job_name"),
            .job_version = row_text(events, res, row, "job_version"),
        };
    }
    *ret = events;
    *ret_count = (size_t)count;
    return 0;
}
