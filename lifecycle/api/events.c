/*
 * The stream of changes for dashboards and users (server-sent events): jobs and deployments that
 * the reader may see. Truth is the table registry_event, so any replica can resume any stream.
 */
#include <inttypes.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "lifecycle/api/api.h"
#include "lifecycle/api/stream.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/subject.h"

#define BUFFER_MAX       ((size_t)16 << 20)
#define LOOK_AGAIN_AFTER (HUB_HEARTBEAT_MS * TRK_NS_PER_MS)

/* Who reads, and from where. */
struct event_reader {
    const char *token; /* NULL: one of our own services, which sees everything */
    struct subject *subject;
    int64_t asked_id; /* Last-Event-ID, or -1 */
    int64_t looked_ns;
};

static bool may_see(const struct event_reader *r, const struct hub_message *m)
{
    if (m->audience != HUB_EVENT) {
        return false;
    }
    if (r->token == NULL || strcmp(m->kind, EVENT_SETTINGS_CHANGED) == 0) {
        return true;
    }
    return m->job_name != NULL && m->job_version != NULL &&
           subject_can(r->subject, SCOPE_READ_JOB, m->job_name, m->job_version, NULL);
}

/* The permissions may have changed, and the token may have been revoked. */
static bool is_still_allowed(struct stream *s)
{
    struct event_reader *r = s->mem;
    trk_pg_auto struct trk_pg *conn = NULL;
    struct subject *subject;
    r->looked_ns = trk_now_ns();
    if (r->token == NULL) {
        return true;
    }
    if (trk_pg_acquire(s->lc->pool, &conn, NULL) < 0 ||
        subject_store_by_token(conn, r, r->token, &subject, NULL) < 0 || !subject->is_active) {
        return false;
    }
    talloc_free(r->subject);
    r->subject = subject;
    return true;
}

static bool pass_visible(struct stream *s, const struct hub_message *m)
{
    struct event_reader *r = s->mem;
    bool is_of_permissions = m->audience == HUB_EVENT &&
                             strcmp(m->kind, EVENT_SUBJECT_CHANGED) == 0;
    if ((is_of_permissions || trk_now_ns() - r->looked_ns > LOOK_AGAIN_AFTER) &&
        !is_still_allowed(s)) {
        return false;
    }
    if (may_see(r, m)) {
        (void)trk_buf_add(&s->out, m->text, m->len);
    }
    return true;
}

static int add_missed(struct trk_pg *conn, const struct event *events, size_t count, void *ctx,
                      struct trk_err *err)
{
    (void)conn;
    (void)err;
    struct stream *s = ctx;
    for (size_t i = 0; i < count; i++) {
        struct hub_message *m = hub_event_message(&events[i]);
        if (may_see(s->mem, m)) {
            (void)trk_buf_add(&s->out, m->text, m->len);
        }
        hub_message_unref(m);
    }
    return 0;
}

/* After Last-Event-ID when everything since is still there, else from now on. */
static int begin(struct trk_pg *conn, void *stream, struct trk_err *err)
{
    struct stream *s = stream;
    const struct event_reader *r = s->mem;
    bool resumes;
    int64_t last;
    int code = stream_can_resume(conn, r->asked_id, &resumes, &last, err);
    if (code < 0) {
        return code;
    }
    s->seen_id = last;
    (void)trk_buf_addf(&s->out, "event: hello\ndata: {\"last_id\":%" PRId64 "}\n\n",
                       resumes ? r->asked_id : last);
    if (resumes) {
        return stream_catch_up(conn, r->asked_id, add_missed, s, err);
    }
    if (r->asked_id >= 0) {
        (void)trk_buf_addf(&s->out,
                           "id: %" PRId64 "\nevent: " EVENT_SETTINGS_CHANGED
                           "\ndata: {\"missed\":true}\n\n",
                           last);
    }
    return 0;
}

static int get_stream(struct trk_request *req, struct trk_err *err)
{
    const struct subject *who = api_subject(req);
    bool is_internal = who->type == TRK_SUBJECT_INTERNAL;
    if (is_internal && !trk_token_has_scope(&who->claims, SCOPE_FULL_ACCESS)) {
        return trk_err_set(err, TRK_FORBIDDEN, "a service needs full access to follow the events");
    }
    struct event_reader *r = talloc_zero(NULL, struct event_reader);
    struct stream *s = stream_new(req, r, BUFFER_MAX);
    *r = (struct event_reader){.token = is_internal ? NULL : talloc_strdup(r, who->token),
                               .asked_id = stream_last_event_id(req)};
    if (!is_still_allowed(s)) {
        stream_free(s);
        return trk_err_set(err, TRK_UNAVAILABLE, "the permissions cannot be read, try again");
    }
    s->pass = pass_visible;
    s->is_still_allowed = is_still_allowed;
    return stream_start(req, s, begin, err);
}

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/api/v1/events/stream",
     .access = "authenticated",
     .flags = TRK_ROUTE_QUIET,
     .handler = get_stream,
     .help = "Changes of the jobs that the caller may read, of their deployments and of settings, "
             "as server-sent events; resumes after Last-Event-ID."},
};
API_TABLE(api_event_routes, "events", routes);
