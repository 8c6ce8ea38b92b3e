#include "pub/answer.h"

#include <string.h>

#include "libtrack/base/clock.h"
#include "libtrack/data/json.h"

#define REPLICAS_MAX 64

static int add_hosts(struct pub_worker *w, const json_t *job, struct pub_decision **ret,
                     const char *caller, struct trk_err *err)
{
    const char *name, *version, *internal;
    if (trk_json_string(job, "name", &name, err) < 0 ||
        trk_json_string(job, "version", &version, err) < 0 ||
        trk_json_string(job, "internal_name", &internal, err) < 0) {
        return -1;
    }
    const json_t *replicas = json_object_get(job, "replica_internal_names");
    size_t count = json_array_size(replicas);
    if (count > REPLICAS_MAX) {
        count = REPLICAS_MAX;
    }
    struct pub_decision *d = pub_decision_new(name, version, trk_json_string_or(job, "status", ""),
                                              caller, count > 0 ? count : 1);
    for (size_t i = 0; i < d->host_count; i++) {
        const char *host = count > 0 ? json_string_value(json_array_get(replicas, i)) : internal;
        d->hosts[i] = host != NULL ? pub_host_get(&w->hosts, host) : NULL;
        if (d->hosts[i] == NULL) {
            pub_decision_unref(d);
            return trk_err_set(err, TRK_BAD_GATEWAY, "job %s %s has no usable address '%s'", name,
                               version, host != NULL ? host : "");
        }
    }
    d->stats = pub_job_stats_get(&w->stats, name, version);
    *ret = d;
    return 0;
}

int pub_answer_decision(struct pub_worker *w, struct trk_h1_slice body, int64_t asked_ns,
                        struct pub_decision **ret, struct trk_err *err)
{
    json_auto_t *answer = NULL;
    if (trk_json_parse(body.at, body.len, &answer, err) < 0) {
        err->code = TRK_BAD_GATEWAY;
        return trk_err_wrap(err, "lifecycle's answer");
    }
    const json_t *job = json_object_get(answer, "job");
    struct pub_decision *d = NULL;
    if (add_hosts(w, job, &d, trk_json_string_or(answer, "caller", NULL), err) < 0) {
        err->code = TRK_BAD_GATEWAY;
        return trk_err_wrap(err, "lifecycle's answer");
    }
    d->fetched_ns = asked_ns;
    d->any_path = strcmp(trk_json_string_or(answer, "decision", "exact_path"), "any_path") == 0;
    int64_t valid_for_ms = trk_json_int_or(answer, "valid_for_ms", 0);
    if (valid_for_ms > 0 && valid_for_ms < INT64_MAX / 2 / TRK_NS_PER_MS) {
        d->ends_ns = asked_ns + valid_for_ms * TRK_NS_PER_MS;
    }
    *ret = d;
    return 0;
}

void pub_answer_error(struct trk_h1_slice body, struct trk_err *err)
{
    json_auto_t *answer = NULL;
    const char *text = NULL;
    if (trk_json_parse(body.at, body.len, &answer, err) == 0) {
        text = trk_json_string_or(answer, "error", trk_json_string_or(answer, "detail", NULL));
    }
    if (text != NULL) {
        (void)trk_err_set(err, TRK_BAD_GATEWAY, "%s", text);
    } else {
        int len = body.len < 200 ? (int)body.len : 200;
        (void)trk_err_set(err, TRK_BAD_GATEWAY, "%.*s", len, body.at);
    }
}

int pub_answer_dechunk(char *bytes, size_t *len)
{
    for (int pass = 0; pass < 2; pass++) {
        struct trk_h1_chunked c;
        trk_h1_chunked_init(&c);
        size_t at = 0, out = 0, used;
        int n = 0;
        while (n == 0 && at < *len) {
            struct trk_h1_slice piece;
            n = trk_h1_chunked_next(&c, bytes + at, *len - at, &used, &piece);
            if (pass == 1 && piece.len > 0) {
                memmove(bytes + out, piece.at, piece.len);
            }
            out += piece.len;
            at += used;
        }
        if (n <= 0) {
            return n < 0 ? -1 : 0;
        }
        if (pass == 1) {
            *len = out;
        }
    }
    return 1;
}
