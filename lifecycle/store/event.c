#include "lifecycle/store/event.h"

#include "lifecycle/store/rows.h"

int event_store_range(struct trk_pg *conn, int64_t *ret_first, int64_t *ret_last,
                      struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err,
                            "select coalesce(max(id), 0) as last, coalesce(min(id), 0) as first "
                            "from registry_event",
                            "");
    if (code == 0) {
        *ret_first = trk_pg_int(res, 0, "first");
        *ret_last = trk_pg_int(res, 0, "last");
    }
    return code;
}

int event_store_after(struct trk_pg *conn, void *mem, int64_t after, int64_t limit,
                      struct event **ret, size_t *ret_count, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int code = trk_pg_query(conn, &res, err,
                            "select id, kind, payload::text as payload from registry_event where "
                            "id > $1 order by id limit $2",
                            "ii", after, limit);
    if (code < 0) {
        return code;
    }
    int count = trk_pg_rows(res);
    struct event *events = row_array(mem, struct event, count);
    for (int row = 0; row < count; row++) {
        events[row].id = trk_pg_int(res, row, "id");
        events[row].kind = row_text(events, res, row, "kind");
        events[row].payload = row_text(events, res, row, "payload");
    }
    *ret = events;
    *ret_count = (size_t)count;
    return 0;
}

int event_store_clean(struct trk_pg *conn, int64_t older_than_s, struct trk_err *err)
{
    return trk_pg_query(conn, NULL, err,
                        "delete from registry_event where create_time < now() - make_interval(secs "
                        "=> $1) and id < (select max(id) from registry_event)",
                        "i", older_than_s);
}
