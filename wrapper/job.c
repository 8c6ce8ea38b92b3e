#include "wrapper/front.h"

#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

void job_reset(struct job *job)
{
    for (size_t i = 0; i < job->endpoint_count; i++) {
        free(job->endpoints[i].path);
        free(job->endpoints[i].method);
    }
    for (size_t i = 0; i < job->static_count; i++) {
        free(job->statics[i].path);
        free(job->statics[i].file);
        free(job->statics[i].mime);
    }
    free(job->endpoints);
    free(job->statics);
    free(job->parameters);
    free(job->openapi);
    memset(job, 0, sizeof(*job));
}

static int load_endpoints(struct front *front, struct job *job, const json_t *list,
                          struct trk_err *err)
{
    size_t i;
    const json_t *item;
    job->endpoints = trk_xcalloc(json_array_size(list) + 1, sizeof(*job->endpoints));
    json_array_foreach (list, i, item) {
        const char *path, *method;
        if (trk_json_string(item, "path", &path, err) < 0 ||
            trk_json_string(item, "method", &method, err) < 0) {
            return trk_err_wrap(err, "endpoint %zu", i);
        }
        struct job_endpoint *e = &job->endpoints[job->endpoint_count++];
        e->path = trk_xstrdup(path);
        e->method = trk_xstrdup(method);
        const char *const labels[] = {path};
        e->errors = trk_metric_series(front->errors_total, labels);
        e->duration = trk_metric_series(front->duration, labels);
        e->started = trk_metric_series(front->endpoint_started_total, labels);
    }
    if (job->endpoint_count == 0) {
        return trk_err_set(err, TRK_INVALID, "the job has no endpoint");
    }
    return 0;
}

static int load_statics(struct job *job, const json_t *list, struct trk_err *err)
{
    size_t i;
    const json_t *item;
    job->statics = trk_xcalloc(json_array_size(list) + 1, sizeof(*job->statics));
    json_array_foreach (list, i, item) {
        const char *path, *file;
        if (trk_json_string(item, "path", &path, err) < 0 ||
            trk_json_string(item, "file", &file, err) < 0) {
            return trk_err_wrap(err, "static endpoint %zu", i);
        }
        struct job_static *s = &job->statics[job->static_count++];
        s->path = trk_xstrdup(path);
        s->file = trk_xstrdup(file);
        s->mime = trk_xstrdup(trk_json_string_or(item, "mime", ""));
        s->is_directory = trk_json_bool_or(item, "directory", false);
    }
    return 0;
}

int job_load(struct front *front, const json_t *announcement, struct trk_err *err)
{
    struct job job = {0};
    const json_t *endpoints = json_object_get(announcement, "endpoints");
    if (load_endpoints(front, &job, endpoints, err) < 0 ||
        load_statics(&job, json_object_get(announcement, "statics"), err) < 0) {
        job_reset(&job);
        return trk_err_wrap(err, "the job's description of itself is not usable");
    }
    job.has_metrics = trk_json_bool_or(announcement, "metrics", false);
    job.parameters = trk_json_text(json_object_get(json_array_get(endpoints, 0), "parameters"));
    job.openapi = job_openapi(&front->options, announcement);
    job_reset(&front->job);
    front->job = job;
    return 0;
}

int job_find_endpoint(const struct job *job, const char *path, struct trk_h1_slice method,
                      bool *ret_known)
{
    *ret_known = false;
    for (size_t i = 0; i < job->endpoint_count; i++) {
        const struct job_endpoint *e = &job->endpoints[i];
        if (strcmp(e->path, path) != 0) {
            continue;
        }
        *ret_known = true;
        if (strlen(e->method) == method.len && memcmp(e->method, method.at, method.len) == 0) {
            return (int)i;
        }
    }
    return -1;
}

const struct job_static *job_find_static(const struct job *job, const char *path,
                                         const char **ret_rest)
{
    const struct job_static *best = NULL;
    size_t best_len = 0;
    for (size_t i = 0; i < job->static_count; i++) {
        const struct job_static *s = &job->statics[i];
        size_t len = strcmp(s->path, "/") == 0 ? 0 : strlen(s->path);
        if (strncmp(path, s->path, len) != 0 || (best != NULL && len < best_len)) {
            continue;
        }
        if (path[len] == '\0' || (s->is_directory && path[len] == '/')) {
            best = s;
            best_len = len;
            *ret_rest = path[len] == '/' ? path + len + 1 : path + len;
        }
    }
    return best;
}
