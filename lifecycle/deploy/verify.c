/*
 * verify.c - steps "alive" and "ready": asks the new generation itself, until it answers as it
 * must, is known to be broken, or time is up.
 */
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "lifecycle/deploy/work.h"

enum {
    PROBE_MS = 3000,
    PAUSE_FIRST_US = 2000,
    PAUSE_MAX_US = 200000,
    LOG_LINES = 20,
    LOG_BYTES = 3000,
    BODY_SHOWN = 300,
};

enum verdict { VERDICT_YES, VERDICT_NOT_YET, VERDICT_NEVER };

/* A probe's view of its deployment. */
struct probe {
    struct work *work;
    const char *path; /* "/live" */
    const char *address;
    char last[1024]; /* what it saw last, for the error */
};

static void note(struct probe *probe, const char *text)
{
    snprintf(probe->last, sizeof(probe->last), "%.1000s", text);
}

static void note_answer(struct probe *probe, const struct trk_http_answer *answer)
{
    snprintf(probe->last, sizeof(probe->last), "GET %s answered status %d: %.*s%s", probe->path,
             answer->status, (int)(answer->body_len < BODY_SHOWN ? answer->body_len : BODY_SHOWN),
             answer->body, answer->body_len > BODY_SHOWN ? "…" : "");
}

static bool is_json(const struct trk_http_answer *answer)
{
    return trk_str_has_prefix(answer->content_type, "application/json");
}

/* Does the answer come from this very deployment, and not from somebody at its old address? */
static bool is_ours(const struct work *w, const json_t *body)
{
    const json_t *timestamp = json_object_get(body, "deployment_timestamp");
    char text[32];
    if (json_is_string(timestamp)) { /* fatman-era wrappers */
        snprintf(text, sizeof(text), "%lld", (long long)w->d->create_time);
        return strcmp(json_string_value(timestamp), text) == 0;
    }
    return json_is_integer(timestamp) && json_integer_value(timestamp) == w->d->create_time;
}

/* The job says that it will never be ready. */
static enum verdict judge_dead(const json_t *body, struct trk_err *err)
{
    (void)trk_err_set(err, TRK_INVALID, "the job reports an error: %.3000s",
                      trk_json_string_or(body, "error", "without saying which"));
    return VERDICT_NEVER;
}

static enum verdict judge_live(struct probe *probe, const struct trk_http_answer *answer,
                               struct trk_err *err)
{
    json_auto_t *body = NULL;
    note_answer(probe, answer);
    if (answer->status == 404) {
        (void)trk_err_set(err, TRK_INVALID,
                          "the job has no endpoint /live (status 404): its server is no Racetrack "
                          "wrapper");
        return VERDICT_NEVER;
    }
    if (!is_json(answer) || trk_json_parse(answer->body, answer->body_len, &body, NULL) < 0 ||
        !is_ours(probe->work, body)) {
        return VERDICT_NOT_YET;
    }
    const json_t *live = json_object_get(body, "live");
    if (json_is_false(live)) {
        return judge_dead(body, err);
    }
    return answer->status == 200 ? VERDICT_YES : VERDICT_NOT_YET;
}

static enum verdict judge_ready(struct probe *probe, const struct trk_http_answer *answer,
                                struct trk_err *err)
{
    note_answer(probe, answer);
    if (answer->status == 404) {
        (void)trk_err_set(err, TRK_INVALID, "the job has no endpoint /ready (status 404)");
        return VERDICT_NEVER;
    }
    return answer->status == 200 ? VERDICT_YES : VERDICT_NOT_YET;
}

static enum verdict ask(struct probe *probe, const char *path,
                        enum verdict (*judge)(struct probe *, const struct trk_http_answer *,
                                              struct trk_err *),
                        struct trk_err *err)
{
    struct work *w = probe->work;
    trk_autofree char *url = trk_xasprintf("http://%s%s", probe->address, path);
    struct trk_http_call call = {.url = url,
                                 .connect_timeout_ms = PROBE_MS,
                                 .timeout_ms = PROBE_MS,
                                 .answer_max_bytes = 1 << 20};
    struct trk_http_answer answer = {0};
    struct trk_err reason = {0};
    probe->path = path;
    if (trk_http_call(w->client, &call, &answer, &reason) < 0) {
        trk_autofree char *text = trk_xasprintf("GET %s: %.900s", path, reason.text);
        note(probe, text);
        return VERDICT_NOT_YET;
    }
    enum verdict verdict = judge(probe, &answer, err);
    trk_http_answer_fini(&answer);
    return verdict;
}

static enum verdict ask_live(struct probe *probe, struct trk_err *err)
{
    return ask(probe, "/live", judge_live, err);
}

static enum verdict ask_ready(struct probe *probe, struct trk_err *err)
{
    enum verdict verdict = ask(probe, "/ready", judge_ready, err);
    if (verdict == VERDICT_NOT_YET) {
        /* Initialising may have failed for good: only /live tells. */
        char last[sizeof(probe->last)];
        memcpy(last, probe->last, sizeof(last));
        if (ask(probe, "/live", judge_live, err) == VERDICT_NEVER) {
            return VERDICT_NEVER;
        }
        memcpy(probe->last, last, sizeof(last));
    }
    return verdict;
}

static void append_logs(struct work *w, struct trk_err *err)
{
    struct trk_buf logs;
    trk_buf_init(&logs, 256 << 10);
    if (w->target->logs(w->target, w->d->generation_id, LOG_LINES, &logs, NULL) == 0 &&
        logs.len > 0) {
        trk_strip_ansi(logs.data);
        size_t len = strlen(logs.data);
        const char *from = len > LOG_BYTES ? logs.data + len - LOG_BYTES : logs.data;
        trk_err_append(err, "\nLast log lines:\n%s", from);
    }
    trk_buf_fini(&logs);
}

size_t work_replicas(const struct work *w)
{
    return (size_t)trk_json_int_or(w->manifest, "replicas", 1);
}

/* The replicas as they are now; *list is freed first. Fails early rather than wait for one that
 * keeps crashing. */
static enum verdict check_workload(struct work *w, struct infra_observation **list, size_t *count,
                                   struct trk_err *err)
{
    struct trk_err why = {0};
    free(*list);
    *list = NULL;
    *count = 0;
    if (w->target->list(w->target, w->d->generation_id, list, count, &why) < 0) {
        return VERDICT_NOT_YET; /* a target that cannot tell is no verdict */
    }
    size_t wanted = work_replicas(w);
    if (*count < wanted) {
        (void)trk_err_set(err, TRK_INTERNAL, "the job's workload has vanished");
        return VERDICT_NEVER;
    }
    for (size_t i = 0; i < *count; i++) {
        const struct infra_observation *seen = &(*list)[i];
        if (seen->state == INFRA_BACKOFF || seen->state == INFRA_FAILED ||
            seen->state == INFRA_GONE || seen->restarts > 0) {
            (void)trk_err_set(err, TRK_INVALID, "the job's process ended before it was ready: %s",
                              seen->reason);
            return VERDICT_NEVER;
        }
    }
    return VERDICT_YES;
}

/* One replica after the other; *done of them have answered well. */
static enum verdict ask_replicas(struct probe *probe, const struct infra_observation *list,
                                 size_t count,
                                 enum verdict (*ask_fn)(struct probe *, struct trk_err *),
                                 size_t *done, struct trk_err *err)
{
    size_t wanted = work_replicas(probe->work);
    while (*done < wanted && *done < count && list[*done].address[0] != '\0') {
        probe->address = list[*done].address;
        enum verdict verdict = ask_fn(probe, err);
        if (verdict != VERDICT_YES) {
            return verdict;
        }
        (*done)++;
    }
    return *done == wanted ? VERDICT_YES : VERDICT_NOT_YET;
}

static int poll_until(struct work *w, enum verdict (*ask_fn)(struct probe *, struct trk_err *),
                      int64_t timeout_s, const char *what, struct trk_err *err)
{
    struct probe probe = {.work = w, .path = ""};
    trk_autofree struct infra_observation *list = NULL;
    size_t count, done = 0;
    int64_t deadline = trk_now_ns() + timeout_s * TRK_NS_PER_S;
    int64_t pause_us = PAUSE_FIRST_US;
    enum verdict verdict = check_workload(w, &list, &count, err);
    while (verdict != VERDICT_NEVER) {
        verdict = ask_replicas(&probe, list, count, ask_fn, &done, err);
        if (verdict != VERDICT_NOT_YET) {
            break;
        }
        if (w->cancel) {
            w->is_abandoned = true;
            return trk_err_set(err, TRK_CANCELLED, "interrupted");
        }
        if (trk_now_ns() > deadline) {
            (void)trk_err_set(err, TRK_TIMEOUT,
                              "the job is not %s after %lld s (timeout_until_job_%s); last: %s",
                              what, (long long)timeout_s, what, probe.last);
            verdict = VERDICT_NEVER;
            break;
        }
        struct timespec pause = {.tv_nsec = pause_us * 1000};
        (void)nanosleep(&pause, NULL);
        pause_us = pause_us * 5 / 4 < PAUSE_MAX_US ? pause_us * 5 / 4 : PAUSE_MAX_US;
        verdict = check_workload(w, &list, &count, err);
    }
    if (verdict == VERDICT_YES) {
        return 0;
    }
    enum trk_code code = err->code;
    append_logs(w, err);
    return code;
}

int step_alive(struct work *w, struct trk_err *err)
{
    int rc = poll_until(w, ask_live, w->lc->config->timeout_until_job_alive, "alive", err);
    struct queue_progress progress = {.step = STEP_READY, .phase = "initializing Job entrypoint"};
    return rc < 0 ? rc : work_advance(w, NULL, &progress, false, err);
}

int step_ready(struct work *w, struct trk_err *err)
{
    int rc = poll_until(w, ask_ready, w->lc->config->timeout_until_job_ready, "ready", err);
    struct queue_progress progress = {.step = STEP_SWITCH, .phase = "post-deploy hooks"};
    return rc < 0 ? rc : work_advance(w, NULL, &progress, false, err);
}
