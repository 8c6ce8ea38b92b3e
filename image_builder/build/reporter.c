#include "image_builder/build/reporter.h"

#include <pthread.h>
#include <stdatomic.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/http/http_client.h"

#define CALL_TIMEOUT_MS 2000
#define FAILURE_REST_S  10

struct report {
    char deployment_id[72];
    char phase[64];
    char *warnings; /* "" when there are none */
    int64_t due_ns; /* when it may be sent; INT64_MAX: it was */
    bool warnings_sent;
    struct report *next;
};

struct reporter {
    char *url, *token;
    struct report *list;
    const char *sending;   /* deployment of the call under way, or NULL */
    int64_t rest_until_ns; /* lifecycle did not answer: leave it alone for a while */
    bool is_stopping, has_thread;
    atomic_bool cancel;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

static void report_free(struct report *report)
{
    free(report->warnings);
    free(report);
}

static struct report **find(struct reporter *reporter, const char *deployment_id)
{
    struct report **at = &reporter->list;
    while (*at != NULL && strcmp((*at)->deployment_id, deployment_id) != 0) {
        at = &(*at)->next;
    }
    return at;
}

/* ---- sending ---- */

static int put(struct reporter *reporter, struct trk_http_client *client, const char *id,
               const char *what, const char *value, struct trk_err *err)
{
    trk_autofree char *url = trk_xasprintf("%s/api/v1/deploy/%s/%s", reporter->url, id, what);
    json_auto_t *body = json_pack("{s:s}", what, value);
    struct trk_http_call call = {.method = "PUT",
                                 .url = url,
                                 .auth_token = reporter->token,
                                 .json = body,
                                 .connect_timeout_ms = 500,
                                 .timeout_ms = CALL_TIMEOUT_MS,
                                 .cancel = &reporter->cancel};
    struct trk_http_answer answer;
    int rc = trk_http_call(client, &call, &answer, err);
    if (rc < 0) {
        return rc;
    }
    rc = answer.status / 100 == 2 ? 0 : trk_http_answer_err(&answer, err);
    trk_http_answer_fini(&answer);
    return rc;
}

/* Called and left with the lock held. */
static void send_report(struct reporter *reporter, struct trk_http_client *client,
                        struct report *report)
{
    char phase[sizeof(report->phase)];
    char id[sizeof(report->deployment_id)];
    memcpy(phase, report->phase, sizeof(phase));
    memcpy(id, report->deployment_id, sizeof(id));
    trk_autofree char *warnings = report->warnings_sent || report->warnings[0] == '\0'
                                      ? NULL
                                      : trk_xstrdup(report->warnings);
    report->due_ns = INT64_MAX;
    report->warnings_sent = report->warnings_sent || warnings != NULL;
    reporter->sending = id;
    (void)pthread_mutex_unlock(&reporter->lock);
    struct trk_err err = {0};
    int rc = put(reporter, client, id, "phase", phase, &err);
    if (rc == 0 && warnings != NULL) {
        rc = put(reporter, client, id, "warnings", warnings, &err);
    }
    if (rc < 0) { /* the build's result says it all again */
        trk_log_debug("a phase was not reported", "deployment", id, "error", err.text, NULL);
    }
    (void)pthread_mutex_lock(&reporter->lock);
    if (rc == TRK_UNAVAILABLE || rc == TRK_TIMEOUT) {
        reporter->rest_until_ns = trk_now_ns() + FAILURE_REST_S * TRK_NS_PER_S;
    }
    reporter->sending = NULL;
    (void)pthread_cond_broadcast(&reporter->changed);
}

static struct report *next_due(struct reporter *reporter)
{
    struct report *first = NULL;
    for (struct report *r = reporter->list; r != NULL; r = r->next) {
        if (r->due_ns != INT64_MAX && (first == NULL || r->due_ns < first->due_ns)) {
            first = r;
        }
    }
    return first;
}

static void *reporter_main(void *arg)
{
    struct reporter *reporter = arg;
    struct trk_http_client *client = NULL; /* libcurl costs memory: only when there is a report */
    (void)pthread_mutex_lock(&reporter->lock);
    while (!reporter->is_stopping) {
        struct report *report = next_due(reporter);
        int64_t now = trk_now_ns();
        if (report == NULL) {
            (void)pthread_cond_wait(&reporter->changed, &reporter->lock);
        } else if (now < reporter->rest_until_ns) {
            report->due_ns = INT64_MAX;
        } else if (report->due_ns > now) {
            struct timespec until = {.tv_sec = report->due_ns / TRK_NS_PER_S,
                                     .tv_nsec = report->due_ns % TRK_NS_PER_S};
            (void)pthread_cond_timedwait(&reporter->changed, &reporter->lock, &until);
        } else {
            if (client == NULL) {
                client = trk_http_client_new();
            }
            send_report(reporter, client, report);
        }
    }
    (void)pthread_mutex_unlock(&reporter->lock);
    trk_http_client_free(client);
    return NULL;
}

/* ---- what the builds call ---- */

struct reporter *reporter_new(const char *url, const char *token)
{
    struct reporter *reporter = trk_xcalloc(1, sizeof(*reporter));
    reporter->url = trk_xstrdup(url);
    reporter->token = trk_xstrdup(token);
    (void)pthread_mutex_init(&reporter->lock, NULL);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&reporter->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    reporter->has_thread = token[0] != '\0' &&
                           pthread_create(&reporter->thread, NULL, reporter_main, reporter) == 0;
    return reporter;
}

void reporter_free(struct reporter *reporter)
{
    if (reporter == NULL) {
        return;
    }
    if (reporter->has_thread) {
        (void)pthread_mutex_lock(&reporter->lock);
        reporter->is_stopping = true;
        reporter->cancel = true;
        (void)pthread_cond_broadcast(&reporter->changed);
        (void)pthread_mutex_unlock(&reporter->lock);
        (void)pthread_join(reporter->thread, NULL);
    }
    for (struct report *next, *r = reporter->list; r != NULL; r = next) {
        next = r->next;
        report_free(r);
    }
    (void)pthread_cond_destroy(&reporter->changed);
    (void)pthread_mutex_destroy(&reporter->lock);
    free(reporter->url);
    free(reporter->token);
    free(reporter);
}

void reporter_phase(struct reporter *reporter, const char *deployment_id, const char *phase,
                    const char *warnings)
{
    if (!reporter->has_thread) {
        return;
    }
    (void)pthread_mutex_lock(&reporter->lock);
    struct report **at = find(reporter, deployment_id);
    if (*at == NULL) {
        *at = trk_xcalloc(1, sizeof(**at));
        (void)snprintf((*at)->deployment_id, sizeof((*at)->deployment_id), "%s", deployment_id);
        (*at)->warnings = trk_xstrdup("");
    }
    struct report *report = *at;
    (void)snprintf(report->phase, sizeof(report->phase), "%s", phase);
    if (strcmp(report->warnings, warnings) != 0) {
        free(report->warnings);
        report->warnings = trk_xstrdup(warnings);
    }
    report->due_ns = trk_now_ns() + REPORT_DELAY_MS * TRK_NS_PER_MS;
    (void)pthread_cond_broadcast(&reporter->changed);
    (void)pthread_mutex_unlock(&reporter->lock);
}

void reporter_forget(struct reporter *reporter, const char *deployment_id)
{
    (void)pthread_mutex_lock(&reporter->lock);
    struct report **at = find(reporter, deployment_id);
    struct report *report = *at;
    if (report != NULL) {
        *at = report->next;
        report_free(report);
    }
    while (reporter->sending != NULL && strcmp(reporter->sending, deployment_id) == 0) {
        (void)pthread_cond_wait(&reporter->changed, &reporter->lock);
    }
    (void)pthread_mutex_unlock(&reporter->lock);
}
