/*
 * build.c - step "build": asks image_builder for the image and waits for it over server-sent
 * events. The same input gives the same image, so after a crash it is simply asked again.
 */
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "lifecycle/deploy/secrets.h"
#include "lifecycle/deploy/work.h"

enum { IDLE_MS = 60000 };

/* The answer as it comes in. */
struct build {
    struct trk_sse *sse;
    json_t *result;
    struct trk_buf refusal; /* body of an answer that is no 200 */
};

static int on_event(void *ctx, const char *event, const char *id, const char *data,
                    struct trk_err *err)
{
    struct build *build = ctx;
    (void)id;
    if (strcmp(event, "result") != 0) {
        return 0; /* heartbeats and log lines */
    }
    json_decref(build->result);
    build->result = NULL;
    int rc = trk_json_parse(data, strlen(data), &build->result, err);
    return rc < 0 ? trk_err_wrap(err, "image_builder's result") : 0;
}

static int on_data(void *ctx, int status, const char *bytes, size_t len, struct trk_err *err)
{
    struct build *build = ctx;
    if (status == 200) {
        return trk_sse_feed(build->sse, bytes, len, err);
    }
    (void)trk_buf_add(&build->refusal, bytes, len); /* what fits is enough to tell */
    return 0;
}

static json_t *make_body(const struct work *w, const json_t *secrets)
{
    char time[32], tag[64];
    trk_format_utc(w->d->create_time, "%Y-%m-%dT%H%M%S", time, sizeof(time));
    /* a second may see several deployments of a job */
    (void)snprintf(tag, sizeof(tag), "%s-%.8s", time, w->d->id);
    json_t *flags = json_array();
    if (w->d->build_flags[0] != '\0') {
        (void)json_array_append_new(flags, json_string(w->d->build_flags));
    }
    json_t *credentials = json_object_get(secrets, "git_credentials");
    json_t *variables = json_object_get(secrets, "secret_build_env");
    return json_pack("{s:O, s:s, s:o, s:o, s:s, s:s?, s:s, s:o}", "manifest", w->manifest,
                     "manifest_yaml", w->d->manifest, "git_credentials",
                     credentials != NULL ? json_incref(credentials) : json_null(),
                     "secret_build_env", variables != NULL ? json_incref(variables) : json_object(),
                     "tag", tag, "source_digest", w->d->source_digest, "deployment_id", w->d->id,
                     "build_flags", flags);
}

/* Says why no answer came, or that it was a refusal. What passes by itself (no image_builder, one
 * that broke off, one that has enough to do) is told from what does not by the code. */
static int explain(const struct build *build, const struct trk_http_answer *answer,
                   struct trk_err *err)
{
    json_auto_t *refusal = NULL;
    const char *text = build->refusal.data;
    enum trk_code code = answer->status == 500 ? TRK_INTERNAL : trk_code_from_http(answer->status);
    if (trk_json_parse(text, build->refusal.len, &refusal, NULL) == 0) {
        text = trk_json_string_or(refusal, "error", text);
    }
    return trk_err_set(err, code, "image_builder refused (status %d): %.1000s", answer->status,
                       text);
}

static int call_builder(struct work *w, const json_t *body, struct build *build,
                        struct trk_err *err)
{
    trk_autofree char *url = trk_xasprintf("%s/api/v1/build/sse", w->lc->config->image_builder_url);
    struct trk_http_call call = {
        .method = "POST",
        .url = url,
        .auth_token = w->lc->internal_token,
        .json = body,
        .timeout_ms = w->lc->config->build_timeout_s * 1000,
        .idle_timeout_ms = IDLE_MS,
        .on_data = on_data,
        .ctx = build,
        .cancel = &w->cancel,
    };
    struct trk_http_answer answer = {0};
    int64_t start_ns = trk_now_ns();
    int rc = trk_http_call(w->client, &call, &answer, err);
    if (rc == TRK_TIMEOUT && trk_now_ns() - start_ns >= call.timeout_ms * TRK_NS_PER_MS) {
        rc = trk_err_set(err, TRK_INVALID, "the build took longer than %lld s (build_timeout_s)",
                         (long long)w->lc->config->build_timeout_s);
    } else if (rc == 0 && answer.status != 200) {
        rc = explain(build, &answer, err);
    } else if (rc == 0 && build->result == NULL) {
        rc = trk_err_set(err, TRK_BAD_GATEWAY, "image_builder broke off without a result");
    }
    trk_http_answer_fini(&answer);
    return rc;
}

/* A result is a verdict, unless image_builder gave up because it ends itself. */
static enum trk_code code_of(const char *error_code)
{
    return strcmp(error_code, "cancelled") == 0  ? TRK_UNAVAILABLE
           : strcmp(error_code, "no_space") == 0 ? TRK_NO_SPACE
                                                 : TRK_INVALID;
}

/* Keeps the log also of a failed build; moves on to "apply" otherwise. */
static int take_result(struct work *w, const json_t *reply, struct trk_err *err)
{
    const json_t *result = json_object_get(reply, "result");
    const char *error = trk_json_string_or(result, "error",
                                           trk_json_string_or(reply, "error", NULL));
    struct queue_progress progress = {
        .build_logs = trk_json_string_or(result, "logs", ""),
        .image_name = trk_json_string_or(result, "image_name", NULL),
        .image_digest = trk_json_string_or(result, "image_digest", NULL),
        .warnings = trk_json_string_or(result, "warnings", NULL),
    };
    if (error == NULL && (progress.image_name == NULL || progress.image_digest == NULL ||
                          !trk_digest_is_valid(progress.image_digest))) {
        error = "image_builder's result names no image";
    }
    if (error == NULL) {
        progress.step = STEP_APPLY;
        progress.phase = "creating cluster resources";
    }
    int rc = work_advance(w, NULL, &progress, false, err);
    if (rc == 0 && error != NULL) {
        rc = trk_err_set(err, code_of(trk_json_string_or(result, "error_code", "internal")), "%s",
                         error);
    }
    return rc;
}

int step_build(struct work *w, struct trk_err *err)
{
    json_auto_t *secrets = NULL;
    struct build build = {0};
    trk_pg_auto struct trk_pg *conn = NULL;
    int rc = trk_pg_acquire(w->lc->pool, &conn, err);
    rc = rc == 0 ? secrets_load_deployment(conn, w->lc->secret_key, w->d->id, &secrets, err) : rc;
    trk_pg_release(TRK_STEAL(conn)); /* not held during the build */
    w->is_abandoned = rc == TRK_UNAVAILABLE;
    if (rc < 0) {
        return rc;
    }
    json_auto_t *body = make_body(w, secrets);
    build.sse = trk_sse_new(on_event, &build);
    trk_buf_init(&build.refusal, 8192);
    rc = call_builder(w, body, &build, err);
    w->is_abandoned = w->cancel;
    if (rc == 0) {
        rc = take_result(w, build.result, err);
    }
    trk_sse_free(build.sse);
    trk_buf_fini(&build.refusal);
    json_decref(build.result);
    return rc;
}
