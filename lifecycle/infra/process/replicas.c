/*
 * replicas.c - the target's operations on generations. Each replica of a generation is a workload
 * of its own: the first has the generation's id, the others "<id>.1", "<id>.2", …
 */
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "lifecycle/infra/process/internal.h"

static struct process_target *self(const struct infra_target *t)
{
    return t->state;
}

static void make_id(const char *generation_id, int replica, char out[40])
{
    trk_assert(replica >= 0 && replica < INFRA_REPLICAS_MAX);
    snprintf(out, 40, replica > 0 ? "%.36s.%u" : "%.36s", generation_id, (unsigned)replica % 100);
}

int workload_split_id(const char *id, char ret_generation[40])
{
    size_t len = strcspn(id, ".");
    snprintf(ret_generation, 40, "%.*s", (int)len, id);
    return id[len] == '.' ? atoi(id + len + 1) : 0;
}

static int compare_ids(const void *a, const void *b)
{
    char left[40], right[40];
    int left_replica = workload_split_id(a, left), right_replica = workload_split_id(b, right);
    int order = strcmp(left, right);
    return order != 0 ? order : left_replica - right_replica;
}

static bool is_there(const struct process_target *p, const char *id)
{
    trk_autofree char *dir = workload_path(p, id, NULL);
    return access(dir, F_OK) == 0;
}

/* How many replicas its first one was started with; 1 when that is not known. */
static int64_t known_replicas(const struct process_target *p, const char *generation_id)
{
    json_auto_t *doc = NULL;
    int rc = workload_load(p, generation_id, &doc, NULL);
    int64_t replicas = rc == 0 ? workload_int(doc, "replicas") : INFRA_REPLICAS_MAX;
    return replicas > 0 ? replicas : 1;
}

/* Ids of those of the generation's first `max` replicas that are there, and of the very first in
 * any case; owned. */
static int ids_of(const struct process_target *p, const char *generation_id, int64_t max,
                  char (**ret)[40], size_t *ret_count, struct trk_err *err)
{
    if (!workload_id_is_valid(generation_id) || strlen(generation_id) > 36) {
        return trk_err_set(err, TRK_NOT_FOUND, "%s is no generation id", generation_id);
    }
    char(*ids)[40] = trk_xcalloc((size_t)max, sizeof(*ids));
    size_t count = 0;
    for (int k = 0; k < max; k++) {
        make_id(generation_id, k, ids[count]);
        count += k == 0 || is_there(p, ids[count]);
    }
    *ret = ids;
    *ret_count = count;
    return 0;
}

int process_apply(const struct infra_target *t, const struct infra_generation_spec *spec,
                  struct infra_observation *ret, struct trk_err *err)
{
    struct trk_err own = {0};
    err = err != NULL ? err : &own;
    struct process_target *p = self(t);
    for (int k = 0; k < INFRA_REPLICAS_MAX; k++) {
        char id[40];
        make_id(spec->generation_id, k, id);
        struct infra_generation_spec one = *spec;
        one.generation_id = id;
        int rc = 0;
        if (spec->cancel != NULL && *spec->cancel) {
            return trk_err_set(err, TRK_CANCELLED, "starting generation %s: interrupted",
                               spec->generation_id);
        }
        if (k == 0 || k < spec->replicas) {
            rc = process_apply_one(p, &one, ret, err);
        } else if (is_there(p, id)) {
            rc = process_remove_one(p, id, err);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return infra_observe(t, spec->generation_id, ret, err);
}

int process_stop(const struct infra_target *t, const char *generation_id, int64_t grace_ms,
                 struct trk_err *err)
{
    struct trk_err own = {0};
    err = err != NULL ? err : &own;
    trk_autofree char(*ids)[40] = NULL;
    size_t count = 0;
    int rc = ids_of(self(t), generation_id, INFRA_REPLICAS_MAX, &ids, &count, err);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = process_stop_one(self(t), ids[i], grace_ms, err);
    }
    return rc == TRK_NOT_FOUND ? 0 : rc;
}

int process_remove(const struct infra_target *t, const char *generation_id, struct trk_err *err)
{
    struct trk_err own = {0};
    err = err != NULL ? err : &own;
    trk_autofree char(*ids)[40] = NULL;
    size_t count = 0;
    int rc = ids_of(self(t), generation_id, INFRA_REPLICAS_MAX, &ids, &count, err);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = process_remove_one(self(t), ids[i], err);
    }
    return rc;
}

int process_list(const struct infra_target *t, const char *generation_id,
                 struct infra_observation **ret, size_t *ret_count, struct trk_err *err)
{
    struct trk_err own = {0};
    err = err != NULL ? err : &own;
    struct process_target *p = self(t);
    trk_autofree char(*ids)[40] = NULL;
    size_t count = 0, found = 0;
    int rc = generation_id != NULL
                 ? ids_of(p, generation_id, known_replicas(p, generation_id), &ids, &count, err)
                 : workload_ids(p, &ids, &count, err);
    if (rc < 0 && (rc != TRK_NOT_FOUND || generation_id == NULL)) {
        return rc;
    }
    if (count > 1) {
        qsort(ids, count, sizeof(*ids), compare_ids);
    }
    struct infra_observation *list = trk_xcalloc(count + 1, sizeof(*list));
    for (size_t i = 0; i < count; i++) {
        struct trk_err one = {0};
        rc = process_observe_one(p, ids[i], &list[found], &one);
        if (rc == 0) {
            found++;
        } else if (rc != TRK_NOT_FOUND && generation_id != NULL) {
            free(list);
            *err = one;
            return rc;
        } else if (rc != TRK_NOT_FOUND) { /* whoever misses it asks for it, and is told the same */
            trk_log_warn("a workload cannot be read; it is left as it is", "generation", ids[i],
                         "error", one.text, NULL);
        }
    }
    *ret = list;
    *ret_count = found;
    return 0;
}

int process_logs(const struct infra_target *t, const char *generation_id, size_t tail,
                 struct trk_buf *out, struct trk_err *err)
{
    struct trk_err own = {0};
    err = err != NULL ? err : &own;
    trk_autofree char(*ids)[40] = NULL;
    size_t count = 0;
    int rc = ids_of(self(t), generation_id, known_replicas(self(t), generation_id), &ids, &count,
                    err);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        char generation[40];
        if (count > 1) {
            rc = trk_buf_addf(out, "%s--- replica %d ---\n", i > 0 ? "\n" : "",
                              workload_split_id(ids[i], generation));
        }
        rc = rc == 0 ? process_logs_one(self(t), ids[i], tail, out, err) : rc;
    }
    return rc;
}
