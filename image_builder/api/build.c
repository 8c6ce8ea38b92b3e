/* POST /api/v1/build and /api/v1/build/sse. The answer is 200 even when the build failed: its
 * `error` says so. A client that goes away cancels its build. */
#include <string.h>

#include "image_builder/build/queue.h"
#include "image_builder/image_builder.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

#define BODY_MAX           ((size_t)4 << 20)
#define HEARTBEAT_MS       2000 /* also how soon a client that went away is noticed */
#define DISCONNECT_POLL_MS 200

static int post_build(struct trk_request *req, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    struct build_job *job;
    int rc = build_job_start(ib->builds, trk_req_json(req), &job, err);
    if (rc < 0) {
        return rc;
    }
    while (build_job_wait(job, DISCONNECT_POLL_MS, NULL) != BUILD_JOB_DONE) {
        if (trk_req_is_disconnected(req)) {
            build_job_cancel(job);
        }
    }
    json_t *result = build_job_result(job);
    build_job_unref(job);
    return trk_reply_json(req, 200, result);
}

/* ---- server-sent events (WHATWG HTML §9.2) ---- */

struct stream {
    struct build_job *job;
    struct trk_buf out;
    bool is_ended;
};

static void stream_fini(void *user)
{
    struct stream *stream = user;
    build_job_cancel(stream->job); /* no effect once it has ended */
    build_job_unref(stream->job);
    trk_buf_fini(&stream->out);
    free(stream);
}

static void add_event(struct trk_buf *out, const char *event, json_t *data)
{
    json_auto_t *owned = data;
    trk_autofree char *text = trk_json_text(owned);
    (void)trk_buf_addf(out, "event: %s\ndata: ", event);
    (void)trk_buf_adds(out, text);
    (void)trk_buf_adds(out, "\n\n");
}

static void add_lines(struct trk_buf *out, const char *lines)
{
    while (*lines != '\0') {
        size_t len = strcspn(lines, "\n");
        add_event(out, "log", json_pack("{s:o}", "line", json_stringn(lines, len)));
        lines += len + (lines[len] == '\n');
    }
}

static void wait_news(struct stream *stream)
{
    struct trk_buf lines;
    trk_buf_init(&lines, 1 << 20);
    switch (build_job_wait(stream->job, HEARTBEAT_MS, &lines)) {
    case BUILD_JOB_LINES:
        add_lines(&stream->out, lines.data);
        break;
    case BUILD_JOB_DONE:
        add_event(&stream->out, "result",
                  json_pack("{s:o}", "result", build_job_result(stream->job)));
        stream->is_ended = true;
        break;
    default:
        (void)trk_buf_adds(&stream->out, "event: keepalive_heartbeat\ndata: {}\n\n");
    }
    trk_buf_fini(&lines);
}

static ssize_t stream_next(void *user, char *bytes, size_t size)
{
    struct stream *stream = user;
    if (stream->out.len == 0) {
        if (stream->is_ended) {
            return 0;
        }
        wait_news(stream);
    }
    size_t n = stream->out.len < size ? stream->out.len : size;
    memcpy(bytes, stream->out.data, n);
    trk_buf_consume(&stream->out, n);
    return stream->out.failed ? -1 : (ssize_t)n;
}

static int post_build_sse(struct trk_request *req, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    struct build_job *job;
    int rc = build_job_start(ib->builds, trk_req_json(req), &job, err);
    if (rc < 0) {
        return rc;
    }
    struct stream *stream = trk_xcalloc(1, sizeof(*stream));
    stream->job = job;
    trk_buf_init(&stream->out, (size_t)256 << 20); /* a result with its log, many lines */
    (void)trk_reply_header(req, "Cache-Control", "no-store");
    return trk_reply_stream(req, 200, "text/event-stream", stream_next, stream, stream_fini);
}

static const char request_schema[] =
    "{\"type\":\"object\",\"required\":[\"manifest\",\"tag\",\"deployment_id\"],\"properties\":{"
    "\"manifest\":{\"type\":\"object\",\"description\":\"checked job manifest\"},"
    "\"manifest_yaml\":{\"type\":[\"string\",\"null\"],\"description\":\"its text, which becomes "
    "job.yaml in the image\"},"
    "\"git_credentials\":{\"type\":[\"object\",\"null\"],\"properties\":{"
    "\"username\":{\"type\":[\"string\",\"null\"]},\"password\":{\"type\":[\"string\",\"null\"]}}},"
    "\"secret_build_env\":{\"type\":[\"object\",\"null\"],\"additionalProperties\":{\"type\":"
    "\"string\"}},"
    "\"tag\":{\"type\":\"string\",\"maxLength\":128},"
    "\"source_digest\":{\"type\":[\"string\",\"null\"],\"description\":\"of a tar or tar.gz that "
    "was "
    "put to /api/v1/sources/{digest}; null: clone git.remote\"},"
    "\"deployment_id\":{\"type\":\"string\",\"maxLength\":64},"
    "\"build_flags\":{\"type\":[\"array\",\"null\"],\"items\":{\"type\":\"string\"}}}}";

#define RESULT_SCHEMA                                                                              \
    "{\"type\":\"object\",\"properties\":{\"image_names\":{\"type\":\"array\",\"items\":{"         \
    "\"type\":"                                                                                    \
    "\"string\"}},\"image_name\":{\"type\":[\"string\",\"null\"]},\"image_digest\":{\"type\":"     \
    "[\"string\",\"null\"]},\"logs\":{\"type\":\"string\"},\"error\":{\"type\":[\"string\","       \
    "\"null\"]},\"error_code\":{\"enum\":[\"invalid\",\"not_found\",\"too_large\","                \
    "\"unavailable\",\"cancelled\","                                                               \
    "\"no_space\",\"internal\",null]},\"warnings\":{\"type\":\"string\"}}}"

static const struct trk_route routes[] = {
    {.method = "POST",
     .path = "/api/v1/build",
     .access = "internal",
     .request_schema = request_schema,
     .response_schema = RESULT_SCHEMA,
     .handler = post_build,
     .body_max_bytes = BODY_MAX,
     .help = "Build a job's image and answer when it is done; 200 also when the build failed."},
    {.method = "POST",
     .path = "/api/v1/build/sse",
     .access = "internal",
     .request_schema = request_schema,
     .handler = post_build_sse,
     .body_max_bytes = BODY_MAX,
     .help = "The same as server-sent events: log, keepalive_heartbeat, at last result."},
};
const struct trk_route_table builder_build_table = {"build", routes, TRK_COUNT(routes)};
