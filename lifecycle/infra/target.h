/*
 * target.h - an infrastructure target: where generations of jobs run. process now; docker and
 * kubernetes behind the same interface.
 *
 * A target holds observed state only; desired state is in Postgres. Every call is idempotent by
 * generation id, so the deployment queue may repeat it after a crash. Calls may block (network,
 * exec) and come from any thread. A target never touches the database.
 *
 *     const struct infra_target *t = infra_named(&registry, "process");
 *     t->apply(t, &spec, &obs, &err);      // starts it, or finds it started already
 */
#ifndef LIFECYCLE_INFRA_TARGET_H
#define LIFECYCLE_INFRA_TARGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"

enum { INFRA_REPLICAS_MAX = 50 };

struct infra_generation_spec {
    const char *generation_id;
    const char *job_name, *job_version;
    const char *image_name;   /* host:port/ns/job-entrypoint/name:tag */
    const char *image_digest; /* sha256:… of the manifest: what is really run */
    const char *manifest_yaml;
    /* "K=V", NULL-terminated; together what the job sees. Secret ones are kept sealed, or where the
     * place has something for secrets. NULL: none. */
    const char *const *env, *const *secret_env;
    int64_t deployment_timestamp;
    int64_t memory_min_bytes, cpu_min_milli; /* what it is promised; 0: nothing */
    int64_t memory_max_bytes, cpu_max_milli; /* what it may use; 0: no limit */
    const char
        *network; /* none: the gateway only; outside: what is not of this host, too; NULL: none */
    int64_t replicas;
    const atomic_bool *cancel; /* true: give up (TRK_CANCELLED), what was started stays; or NULL */
};

enum infra_state {
    INFRA_STARTING,
    INFRA_RUNNING,
    INFRA_BACKOFF,
    INFRA_FAILED,
    INFRA_STOPPING, /* asked to end, it may be finishing its calls: removing it now would cut them
                     */
    INFRA_GONE,
};

/* One replica of a generation. */
struct infra_observation {
    char generation_id[40];
    int replica; /* from 0 */
    char job_name[513], job_version[257];
    enum infra_state state;
    char address[512]; /* host:port to call, "" when none yet */
    int64_t restarts;
    char reason[512]; /* why it is not running: "exited with status 1 …" */
};

struct infra_target {
    const char *name;     /* its kind: "process" */
    const char *instance; /* which one of that kind: whoever reaches it knows it by this name, and
                             the generations on it are in no other */
    void *state;
    /* Starts what is missing of spec->replicas and removes what is more; *ret as infra_observe.
     * TRK_GONE: the image store does not have the image (any more). */
    int (*apply)(const struct infra_target *t, const struct infra_generation_spec *spec,
                 struct infra_observation *ret, struct trk_err *err);
    /* Begins a graceful end: no new calls, in-flight ones finish within grace_ms, then it is
     * killed; returns at once. Unknown ids are fine. */
    int (*stop)(const struct infra_target *t, const char *generation_id, int64_t grace_ms,
                struct trk_err *err);
    /* Removes every trace (kills first if need be). Idempotent. */
    int (*remove)(const struct infra_target *t, const char *generation_id, struct trk_err *err);
    /* The replicas of one generation (none when the target does not know it), or all (id NULL), by
     * generation and number; *ret owned array (free). A failure means "unknown", never "empty". */
    int (*list)(const struct infra_target *t, const char *generation_id,
                struct infra_observation **ret, size_t *ret_count, struct trk_err *err);
    /* From now on `changed` is told, from any thread, when a replica has ended, or was started
     * again, by itself; it must not block. What it was told of late, or not, is seen by list. NULL:
     * nobody is told any more, once this has returned. NULL instead of a function: it cannot. */
    void (*watch)(const struct infra_target *t,
                  void (*changed)(void *ctx, const char *generation_id), void *ctx);
    /* Last `tail` lines (0: all kept) of the generation's output. */
    int (*logs)(const struct infra_target *t, const char *generation_id, size_t tail,
                struct trk_buf *out, struct trk_err *err);
};

/* A generation as a whole: it runs when any replica does, and is gone when all are. The address is
 * that of the first that runs, the reason that of the first that does not. TRK_NOT_FOUND when the
 * target does not know it. */
int infra_observe(const struct infra_target *t, const char *generation_id,
                  struct infra_observation *ret, struct trk_err *err) TRK_MUST_CHECK;
/* The same of what was listed; count > 0. */
void infra_sum_up(const struct infra_observation *list, size_t count,
                  struct infra_observation *ret);

#endif
