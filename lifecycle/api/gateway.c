/*
 * The gateway's side door: everything that a call's decision needs as one picture and ordered
 * changes (server-sent events), and what gateways report back.
 *
 *   event: snapshot {"id"}, then job, subject, settings, at last snapshot_end: the whole picture
 *   event: resumed {"id"}: the changes since Last-Event-ID follow
 *   event: job, subject, job_removed, subject_removed: arrays of records, each the whole present
 *   state of its key (store/gateway.c)
 */
#include <inttypes.h>
#include <talloc.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/api/api.h"
#include "lifecycle/api/stream.h"
#include "lifecycle/store/gateway.h"

#define PICTURE_BYTES_MAX ((size_t)512 << 20)
#define REPORT_BYTES_MAX  ((size_t)8 << 20)

static bool pass_gateway(struct stream *s, const struct hub_message *m)
{
    if (m->audience == HUB_GATEWAY) {
        (void)trk_buf_add(&s->out, m->text, m->len);
    }
    return true;
}

static int add_changed(struct trk_pg *conn, const struct event *events, size_t count, void *ctx,
                       struct trk_err *err)
{
    struct stream *s = ctx;
    return hub_render(s->lc, conn, events, count, &s->out, err);
}

static int begin(struct trk_pg *conn, void *stream, struct trk_err *err)
{
    struct stream *s = stream;
    const int64_t *asked = s->mem; /* Last-Event-ID */
    bool resumes;
    int64_t last;
    int code = stream_can_resume(conn, *asked, &resumes, &last, err);
    if (code < 0) {
        return code;
    }
    s->seen_id = last;
    if (resumes) {
        (void)trk_buf_addf(&s->out, "event: resumed\ndata: {\"id\":%" PRId64 "}\n\n", last);
        code = hub_render_settings(conn, &s->out, err);
        return code < 0 ? code : stream_catch_up(conn, *asked, add_changed, s, err);
    }
    size_t jobs = 0, subjects = 0;
    (void)trk_buf_addf(&s->out, "event: snapshot\ndata: {\"id\":%" PRId64 "}\n\n", last);
    code = hub_render_all(s->lc, conn, &s->out, &jobs, &subjects, err);
    (void)trk_buf_addf(
        &s->out, "id: %" PRId64 "\nevent: snapshot_end\ndata: {\"jobs\":%zu,\"subjects\":%zu}\n\n",
        last, jobs, subjects);
    return code;
}

static int get_stream(struct trk_request *req, struct trk_err *err)
{
    int64_t *asked = talloc(NULL, int64_t);
    *asked = stream_last_event_id(req);
    struct stream *s = stream_new(req, asked, PICTURE_BYTES_MAX);
    s->pass = pass_gateway;
    return stream_start(req, s, begin, err);
}

/* -- reports -- */

static int note_report(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    const json_t *body = ctx;
    const json_t *tokens = json_object_get(body, "tokens");
    const json_t *jobs = json_object_get(body, "jobs");
    int code = json_array_size(tokens) > 0 ? gateway_store_note_tokens(conn, tokens, err) : 0;
    return code == 0 && json_array_size(jobs) > 0 ? gateway_store_note_jobs(conn, jobs, err) : code;
}

static int post_report(struct trk_request *req, struct trk_err *err)
{
    int code = api_transaction(req, note_report, (void *)(uintptr_t)trk_req_json(req), err);
    return code < 0 ? code : trk_reply_null(req);
}

static const char report_schema[] =
    "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"tokens\":{\"type\":"
    "\"array\",\"maxItems\":20000,\"items\":{\"type\":\"object\",\"required\":[\"d\",\"t\"],"
    "\"properties\":{\"d\":{\"type\":\"string\",\"maxLength\":64,\"description\":\"SHA-256 of the "
    "token, hexadecimal\"},\"t\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":99999999999,"
    "\"description\":\"last use, Unix seconds\"}}}},\"jobs\":{\"type\":\"array\",\"maxItems\":"
    "20000,\"items\":{\"type\":\"object\",\"required\":[\"name\",\"version\",\"t\",\"calls\"],"
    "\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":512},\"version\":{\"type\":"
    "\"string\",\"maxLength\":256},\"t\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":"
    "99999999999,\"description\":\"last call, Unix seconds\"},\"calls\":{\"type\":\"integer\","
    "\"minimum\":0,\"maximum\":1000000000000,\"description\":\"since the last report\"}}}}}}";

static const struct trk_route routes[] = {
    {.method = "GET",
     .path = "/api/v1/gateway/stream",
     .access = "internal",
     .flags = TRK_ROUTE_QUIET,
     .handler = get_stream,
     .help = "Jobs, callers and grants as one picture and ordered changes, as server-sent events; "
             "resumes after Last-Event-ID."},
    {.method = "POST",
     .path = "/api/v1/gateway/report",
     .access = "internal",
     .flags = TRK_ROUTE_QUIET,
     .request_schema = report_schema,
     .body_max_bytes = REPORT_BYTES_MAX,
     .handler = post_report,
     .help = "When tokens were used and jobs were called last; times go forward only."},
};
API_TABLE(api_gateway_routes, "gateway", routes);
