/* hub_render.c - from events to the gateway stream's records: what the changed keys are now. */
#include <inttypes.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/hub.h"
#include "lifecycle/config.h"
#include "lifecycle/domain/call_secret.h"
#include "lifecycle/store/gateway.h"
#include "lifecycle/store/setting.h"

#define PAGE 1000 /* records of one event */

typedef int (*load_records)(struct trk_pg *conn, void *mem, const json_t *ids, const char *after,
                            int64_t limit, struct gateway_record **ret, size_t *ret_count,
                            struct trk_err *err);

static void add_record(struct lifecycle *lc, const struct gateway_record *r, struct trk_buf *out)
{
    if (r->generation_id == NULL) {
        (void)trk_buf_adds(out, r->json);
        return;
    }
    char secret[CALL_SECRET_SIZE];
    call_secret_make(lc->secret_key, r->generation_id, secret);
    (void)trk_buf_add(out, r->json, strlen(r->json) - 1); /* without its closing brace */
    (void)trk_buf_addf(out, ", \"secret\": \"%s\"}", secret);
}

/* One event: an array of the records. */
static void add_records(struct lifecycle *lc, const char *event,
                        const struct gateway_record *records, size_t count, struct trk_buf *out)
{
    (void)trk_buf_addf(out, "event: %s\ndata: [", event);
    for (size_t i = 0; i < count; i++) {
        (void)trk_buf_adds(out, i > 0 ? "," : "");
        add_record(lc, &records[i], out);
    }
    (void)trk_buf_adds(out, "]\n\n");
}

static int finish(const struct trk_buf *out, struct trk_err *err)
{
    return out->failed
               ? trk_err_set(err, TRK_TOO_LARGE, "the changes exceed %zu bytes", out->cap_bytes)
               : 0;
}

/* All records of a kind, page by page; of `ids` only unless NULL. Ids that were found are taken
 * out of `ids_left` (may be NULL). */
static int add_pages(struct lifecycle *lc, struct trk_pg *conn, const char *event,
                     load_records load, const json_t *ids, json_t *ids_left, size_t *ret_count,
                     struct trk_buf *out, struct trk_err *err)
{
    trk_autofree char *after = trk_xstrdup("");
    size_t count = PAGE;
    *ret_count = 0;
    while (count == PAGE) {
        void *mem = talloc_new(NULL);
        struct gateway_record *records;
        int code = load(conn, mem, ids, after, PAGE, &records, &count, err);
        if (code == 0 && count > 0) {
            add_records(lc, event, records, count, out);
            free(after);
            after = trk_xstrdup(records[count - 1].id);
            *ret_count += count;
            for (size_t i = 0; i < count; i++) {
                (void)json_object_del(ids_left, records[i].id);
            }
        }
        talloc_free(mem);
        if (code < 0) {
            return code;
        }
    }
    return finish(out, err);
}

/* -- what events have changed -- */

struct changes {
    json_t *jobs, *subjects; /* objects whose keys are ids */
    json_t *removed;         /* array of jobs that went */
    bool has_settings;
};

static void note(struct changes *c, const struct event *event)
{
    json_auto_t *payload = NULL;
    if (trk_json_parse(event->payload, strlen(event->payload), &payload, NULL) < 0) {
        return;
    }
    const char *job = trk_json_string_or(payload, "job_id", NULL);
    const char *subject = trk_json_string_or(payload, "subject_id", NULL);
    if (strcmp(event->kind, EVENT_SETTINGS_CHANGED) == 0) {
        c->has_settings = true;
    } else if (strcmp(event->kind, EVENT_JOB_CHANGED) == 0 && job != NULL) {
        (void)json_object_set_new(c->jobs, job, json_true());
    } else if (strcmp(event->kind, EVENT_JOB_REMOVED) == 0 && job != NULL) {
        (void)json_object_del(c->jobs, job);
        (void)json_array_append_new(
            c->removed, json_pack("{s:s,s:s,s:s}", "id", job, "name",
                                  trk_json_string_or(payload, "job_name", ""), "version",
                                  trk_json_string_or(payload, "job_version", "")));
    } else if (strcmp(event->kind, EVENT_SUBJECT_CHANGED) == 0 && subject != NULL) {
        (void)json_object_set_new(c->subjects, subject, json_true());
    }
}

static json_t *keys_of(json_t *object)
{
    json_t *keys = json_array();
    const char *key;
    json_t *value;
    json_object_foreach (object, key, value) {
        (void)json_array_append_new(keys, json_string(key));
    }
    return keys;
}

static void add_array(const char *event, const json_t *array, struct trk_buf *out)
{
    if (json_array_size(array) > 0) {
        trk_autofree char *text = trk_json_text(array);
        (void)trk_buf_addf(out, "event: %s\ndata: ", event);
        (void)trk_buf_adds(out, text);
        (void)trk_buf_adds(out, "\n\n");
    }
}

static int add_changes(struct lifecycle *lc, struct trk_pg *conn, struct changes *c,
                       struct trk_buf *out, struct trk_err *err)
{
    json_auto_t *jobs = keys_of(c->jobs);
    json_auto_t *subjects = keys_of(c->subjects);
    size_t count;
    int code = 0;
    add_array("job_removed", c->removed, out);
    if (json_array_size(jobs) > 0) {
        code = add_pages(lc, conn, "job", gateway_store_jobs, jobs, c->jobs, &count, out, err);
    }
    if (code == 0 && json_array_size(subjects) > 0) {
        code = add_pages(lc, conn, "subject", gateway_store_subjects, subjects, c->subjects, &count,
                         out, err);
    }
    if (code == 0) {
        json_auto_t *gone = json_array(); /* what was not found */
        const char *id;
        json_t *value;
        json_object_foreach (c->subjects, id, value) {
            (void)json_array_append_new(gone, json_pack("{s:s}", "id", id));
        }
        add_array("subject_removed", gone, out);
    }
    if (code == 0 && c->has_settings) {
        code = hub_render_settings(conn, out, err);
    }
    return code < 0 ? code : finish(out, err);
}

int hub_render(struct lifecycle *lc, struct trk_pg *conn, const struct event *events, size_t count,
               struct trk_buf *out, struct trk_err *err)
{
    struct changes c = {.jobs = json_object(), .subjects = json_object(), .removed = json_array()};
    for (size_t i = 0; i < count; i++) {
        note(&c, &events[i]);
    }
    size_t before = out->len;
    int code = add_changes(lc, conn, &c, out, err);
    if (code == 0 && out->len > before) {
        /* An id alone moves the reader's mark (WHATWG HTML §9.2.6) once all before it is there. */
        (void)trk_buf_addf(out, "id: %" PRId64 "\nevent: seen\ndata: {}\n\n", events[count - 1].id);
    }
    json_decref(c.jobs);
    json_decref(c.subjects);
    json_decref(c.removed);
    return code < 0 ? code : finish(out, err);
}

int hub_render_all(struct lifecycle *lc, struct trk_pg *conn, struct trk_buf *out, size_t *ret_jobs,
                   size_t *ret_subjects, struct trk_err *err)
{
    int code = add_pages(lc, conn, "job", gateway_store_jobs, NULL, NULL, ret_jobs, out, err);
    if (code == 0) {
        code = add_pages(lc, conn, "subject", gateway_store_subjects, NULL, NULL, ret_subjects, out,
                         err);
    }
    return code < 0 ? code : hub_render_settings(conn, out, err);
}

int hub_render_settings(struct trk_pg *conn, struct trk_buf *out, struct trk_err *err)
{
    bool on;
    int code = setting_store_is_maintenance(conn, &on, err);
    if (code == 0) {
        (void)trk_buf_addf(out, "event: settings\ndata: {\"maintenance\":%s}\n\n",
                           on ? "true" : "false");
    }
    return code;
}
