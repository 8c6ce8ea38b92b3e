#include "pub/picture.h"

#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "pub/record.h"

#define PAGE 1000 /* records of one event */

static int apply_settings(struct pub_table *table, const char *data, struct trk_err *err)
{
    json_auto_t *value = NULL;
    if (trk_json_parse(data, strlen(data), &value, err) < 0) {
        return trk_err_wrap(err, "event settings");
    }
    const json_t *maintenance = json_object_get(value, "maintenance");
    if (!json_is_boolean(maintenance)) {
        return trk_err_set(err, TRK_SCHEMA,
                           "event settings: maintenance is neither true nor false");
    }
    pub_table_set_maintenance(table, json_is_true(maintenance));
    return 0;
}

/* 1: the event was known. */
static int apply(struct pub_picture *p, const char *event, const char *data, struct trk_err *err)
{
    if (strcmp(event, "snapshot") == 0) {
        p->position = -1;
        p->is_in_picture = true;
        p->is_in_sync = false;
        pub_table_begin_picture(p->table);
        return 0;
    }
    if (strcmp(event, "snapshot_end") == 0) {
        if (!p->is_in_picture) {
            return trk_err_set(err, TRK_SCHEMA, "snapshot_end without a snapshot");
        }
        pub_table_end_picture(p->table);
        p->is_in_picture = false;
        p->is_in_sync = p->is_changed = true;
        return 0;
    }
    if (strcmp(event, "resumed") == 0) {
        p->is_in_sync = true;
        return 0;
    }
    int n = strcmp(event, "settings") == 0 ? apply_settings(p->table, data, err)
                                           : pub_record_apply(p->table, event, data, err);
    p->is_changed |= n != 0;
    return n;
}

int pub_picture_event(struct pub_picture *p, const char *event, const char *id, const char *data,
                      struct trk_err *err)
{
    if (apply(p, event, data, err) < 0) {
        p->position = -1;
        p->is_in_sync = false;
        return err->code;
    }
    int64_t number;
    if (p->is_in_sync && id[0] != '\0' && trk_parse_int64(id, 0, INT64_MAX, &number, NULL) == 0) {
        p->position = number;
    }
    return 0;
}

/* -- writing -- */

static void write_records(const struct pub_table *table, bool is_jobs, struct trk_buf *buf)
{
    const struct pub_job *job;
    const struct pub_subject *subject;
    size_t count = 0;
    for (size_t cursor = 0; pub_table_next(table, &cursor, &job, &subject);) {
        if ((job != NULL) != is_jobs) {
            continue;
        }
        if (count % PAGE == 0) {
            (void)trk_buf_adds(buf, count > 0 ? "]\n\n" : "");
            (void)trk_buf_adds(buf, is_jobs ? "event: job\ndata: [" : "event: subject\ndata: [");
        } else {
            (void)trk_buf_addc(buf, ',');
        }
        if (is_jobs) {
            pub_record_write_job(job, buf);
        } else {
            pub_record_write_subject(subject, buf);
        }
        count++;
    }
    (void)trk_buf_adds(buf, count > 0 ? "]\n\n" : "");
}

void pub_picture_write(const struct pub_table *table, struct trk_buf *buf)
{
    (void)trk_buf_adds(buf, "event: snapshot\ndata: {}\n\n");
    write_records(table, true, buf);
    write_records(table, false, buf);
    (void)trk_buf_addf(buf, "event: settings\ndata: {\"maintenance\":%s}\n\n",
                       pub_table_is_maintenance(table) ? "true" : "false");
    (void)trk_buf_adds(buf, "event: snapshot_end\ndata: {}\n\n");
}
