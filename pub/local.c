/* What pub answers by itself: probes, metrics, and paths that lead nowhere. */
#include <math.h>
#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/metrics/metrics.h"
#include "pub/client.h"
#include "pub/text.h"
#include "version.h"

#define METRICS_MAX (64 * 1024 * 1024)

static void reply_json(struct pub_client *c, const char *text)
{
    pub_reply(c, 200, "application/json", text, strlen(text));
}

static void health(struct pub_client *c)
{
    struct pub_shared *shared = c->worker->shared;
    int64_t age_ns = pub_feed_age_ns(shared->feed, c->worker->loop.now_ns);
    char body[512];
    struct pub_text t;
    pub_stat(&c->worker->stats, PUB_HEALTH_REQUESTS);
    pub_text_init(&t, body, sizeof(body));
    pub_text_adds(&t, "{\"service\":\"pub\",\"version\":");
    pub_text_json(&t, TRK_GIT_VERSION, strlen(TRK_GIT_VERSION));
    pub_text_adds(&t, ",\"status\":\"pass\",\"auth_required\":");
    pub_text_adds(&t, shared->config->auth_required ? "true" : "false");
    pub_text_adds(&t, ",\"lifecycle_stream\":");
    pub_text_adds(&t, pub_feed_is_open(shared->feed) ? "true" : "false");
    pub_text_adds(&t, ",\"table_age_seconds\":");
    if (age_ns < 0) {
        pub_text_adds(&t, "null}\n");
    } else {
        pub_text_u64(&t, (uint64_t)(age_ns / TRK_NS_PER_S));
        pub_text_adds(&t, "}\n");
    }
    pub_reply(c, 200, "application/json", body, pub_text_len(&t));
}

/* Not before it knows what may be called. */
static void ready(struct pub_client *c)
{
    bool is_ready = pub_table_has_picture(c->worker->shared->table);
    const char *text = is_ready ? "{\"ready\":true}\n" : "{\"ready\":false}\n";
    pub_reply(c, is_ready ? 200 : 503, "application/json", text, strlen(text));
}

static void metrics(struct pub_client *c)
{
    struct pub_shared *shared = c->worker->shared;
    struct pub_stats *all[PUB_READERS_MAX + 1];
    for (size_t i = 0; i < shared->worker_count; i++) {
        all[i] = &shared->workers[i].stats;
    }
    all[shared->worker_count] = pub_feed_stats(shared->feed);
    struct pub_table_counts counts;
    pub_feed_count(shared->feed, &counts);
    int64_t age_ns = pub_feed_age_ns(shared->feed, c->worker->loop.now_ns);
    struct pub_gauges gauges = {.connections = atomic_load(&shared->client_count),
                                .is_stream_open = pub_feed_is_open(shared->feed),
                                .age_s = age_ns < 0 ? (double)NAN : (double)age_ns / 1e9,
                                .jobs = counts.jobs,
                                .tokens = counts.tokens,
                                .grants = counts.grants};
    struct trk_buf buf;
    trk_buf_init(&buf, METRICS_MAX);
    pub_stats_render(all, shared->worker_count + 1, &gauges, &buf);
    (void)trk_metrics_render(shared->metrics, &buf);
    pub_reply(c, buf.failed ? 500 : 200, "text/plain; version=0.0.4; charset=utf-8", buf.data,
              buf.len);
    trk_buf_fini(&buf);
}

void pub_local(struct pub_client *c, const struct pub_route *route)
{
    switch (route->kind) {
    case PUB_ROUTE_LIVE:
        reply_json(c, "{\"live\":true}\n");
        break;
    case PUB_ROUTE_READY:
        ready(c);
        break;
    case PUB_ROUTE_HEALTH:
        health(c);
        break;
    case PUB_ROUTE_METRICS:
        metrics(c);
        break;
    default: {
        char text[512];
        const char *name = c->worker->shared->config->service_name;
        (void)snprintf(text, sizeof(text),
                       "there is nothing at this path; jobs are at /%s/job/{name}/{version}/… "
                       "(version: a number, latest or a wildcard such as 1.x), probes at /%s/live, "
                       "/%s/ready, /%s/health and /%s/metrics",
                       name, name, name, name, name);
        pub_reply_error(c, 404, "404 page not found: ", text);
        break;
    }
    }
}
