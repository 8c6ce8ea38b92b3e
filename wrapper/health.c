#include "wrapper/front.h"

#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

bool front_is_live(const struct front *front)
{
    return !front->is_failed;
}

bool front_is_ready(const struct front *front)
{
    return front->current != NULL && !front->is_failed;
}

static json_t *failure(const struct front *front)
{
    return trk_json_string_or_null(front->failure);
}

void health_live(struct conn *conn)
{
    const struct front *front = conn->front;
    bool is_live = front_is_live(front);
    json_t *json = json_object();
    (void)json_object_set_new(json, "live", json_boolean(is_live));
    (void)json_object_set_new(json, "deployment_timestamp",
                              json_integer(front->options.deployment_timestamp));
    if (!is_live) {
        (void)json_object_set_new(json, "error", failure(front));
    }
    conn_reply_json(conn, is_live ? 200 : 500, json);
}

void health_ready(struct conn *conn)
{
    bool is_ready = front_is_ready(conn->front);
    json_t *json = json_object();
    (void)json_object_set_new(json, "ready", json_boolean(is_ready));
    conn_reply_json(conn, is_ready ? 200 : 500, json);
}

void health_health(struct conn *conn, bool is_fatman)
{
    const struct front *front = conn->front;
    const struct wrapper_options *o = &front->options;
    bool is_live = front_is_live(front), is_ready = front_is_ready(front);
    bool is_passing = is_live && is_ready;
    json_t *json = json_object();
    (void)json_object_set_new(json, "service", json_string(is_fatman ? "fatman" : "job"));
    (void)json_object_set_new(json, is_fatman ? "fatman_name" : "job_name",
                              json_string(o->job_name));
    (void)json_object_set_new(json, is_fatman ? "fatman_version" : "job_version",
                              json_string(o->job_version));
    (void)json_object_set_new(json, "live", json_boolean(is_live));
    (void)json_object_set_new(json, "ready", json_boolean(is_ready));
    (void)json_object_set_new(json, "status", json_string(is_passing ? "pass" : "fail"));
    (void)json_object_set_new(json, "error", failure(front));
    (void)json_object_set_new(json, "git_version", json_string(o->git_version));
    (void)json_object_set_new(json, "deployed_by_racetrack_version", json_string(o->deployed_by));
    (void)json_object_set_new(json, "deployment_timestamp", json_integer(o->deployment_timestamp));
    (void)json_object_set_new(json, "job_type_version", json_string(o->job_type_version));
    conn_reply_json(conn, is_passing ? 200 : 500, json);
}

/* ---- metrics ---- */

void metrics_init(struct front *front)
{
    static const double bounds[] = {.001, .0025, .005, .01, .025, .05, .1, .25,
                                    .5,   1,     2.5,  5,   10,   30,  60, 120};
    struct trk_metrics *m = trk_metrics_new();
    front->metrics = m;
    front->errors_total = trk_metrics_counter(m, "request_internal_errors_total",
                                              "Number of server errors when calling an endpoint",
                                              "endpoint");
    front->duration = trk_metrics_histogram(m, "request_duration",
                                            "Duration of an endpoint's call in seconds", "endpoint",
                                            bounds, TRK_COUNT(bounds));
    front->started_total = trk_metrics_counter(m, "requests_started_total",
                                               "Number of requests that arrived", NULL);
    front->done_total = trk_metrics_counter(m, "requests_done_total",
                                            "Number of requests that were answered", NULL);
    front->endpoint_started_total = trk_metrics_counter(
        m, "endpoint_requests_started_total", "Number of requests that arrived", "endpoint");
    front->last_call = trk_metrics_gauge(m, "last_call_timestamp",
                                         "Unix time in seconds of the last call", NULL);
}

void metrics_call_started(struct front *front, int endpoint)
{
    trk_metric_inc(front->started_total);
    trk_series_add(front->job.endpoints[endpoint].started, 1);
    trk_series_set(trk_metric_series(front->last_call, NULL), (double)trk_wall_ms() / 1000);
}

void metrics_call_done(struct front *front, int endpoint, int status, int64_t began_ns, int64_t now)
{
    trk_metric_inc(front->done_total);
    if (endpoint < 0 || (size_t)endpoint >= front->job.endpoint_count) {
        return;
    }
    const struct job_endpoint *e = &front->job.endpoints[endpoint];
    trk_series_observe(e->duration, (double)(now - began_ns) / (double)TRK_NS_PER_S);
    if (status >= 500) {
        trk_series_add(e->errors, 1);
    }
}

static void scrape_reply(struct conn *conn)
{
    struct front *front = conn->front;
    struct trk_buf text;
    trk_buf_init(&text, 64 << 20);
    (void)trk_metrics_render(front->metrics, &text);
    if (front->scraped != NULL) {
        (void)trk_buf_add(&text, front->scraped, front->scraped_len);
    }
    const struct reply reply = {.status = 200,
                                .type = "text/plain; version=0.0.4; charset=utf-8",
                                .data = text.data,
                                .len = text.len,
                                .file_fd = -1};
    conn_reply(conn, &reply);
    trk_buf_fini(&text);
}

static void scrape_reply_all(struct front *front)
{
    struct conn *next;
    front->scrape_ns = 0;
    for (struct conn *conn = front->conns; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->state == CONN_SCRAPING) {
            scrape_reply(conn);
            conn_resume(conn);
        }
    }
}

static void on_scraped(void *owner, const struct answer *answer)
{
    struct front *front = owner;
    front->scrape = NULL;
    if (answer->status == 200) {
        char *text = malloc(answer->len + 1);
        bool ok = text != NULL;
        if (ok && answer->fd < 0) {
            memcpy(text, answer->data, answer->len);
        } else if (ok) {
            ok = pread(answer->fd, text, answer->len, (off_t)answer->offset) ==
                 (ssize_t)answer->len;
        }
        if (ok) {
            free(front->scraped);
            front->scraped = TRK_STEAL(text);
            front->scraped_len = answer->len;
        }
        free(text);
    }
    scrape_reply_all(front);
}

/* The job's own metrics come from user code: asked for with a short patience, else the last ones.
 */
void scrape_start(struct conn *conn)
{
    struct front *front = conn->front;
    bool is_asked = front->scrape != NULL;
    if (!front->job.has_metrics || front->current == NULL || (is_asked && front->scrape_ns == 0)) {
        scrape_reply(conn);
        return;
    }
    if (!is_asked) {
        char reason[256];
        const struct call_request request = {
            .kind = RING_METRICS, .head = "", .body = "", .done = on_scraped, .owner = front};
        if (call_start(front, &request, &front->scrape, reason, sizeof(reason)) != 0) {
            scrape_reply(conn);
            return;
        }
        front->scrape_ns = front->now_ns + FRONT_METRICS_NS;
        front->next_tick_ns = 0;
    }
    conn->state = CONN_SCRAPING;
}

void scrape_check_timeout(struct front *front, int64_t now)
{
    if (front->scrape_ns != 0 && now >= front->scrape_ns) {
        scrape_reply_all(front);
    }
}
