/*
 * deploy.h - the durable deployment queue: what the API asks of it.
 *
 * deploy_submit does in one transaction what must hold before the caller gets an id (row, source,
 * sealed secrets); the work itself is done by workers (deploy_start) in named steps that any
 * replica can take over. Rules (overwrite protection, permissions) are checked by deploy_submit, so
 * that a mistake is a 4xx at once, and again before the deployment takes effect. Any thread.
 */
#ifndef LIFECYCLE_DEPLOY_DEPLOY_H
#define LIFECYCLE_DEPLOY_DEPLOY_H

#include <jansson.h>
#include <stdbool.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"

struct lifecycle; /* lifecycle/lifecycle.h: config, pool, infrastructure targets, metrics */
struct subject;   /* lifecycle/domain/subject.h: who asks */
struct deploy_queue;
struct context;
struct infra_target;

struct deploy_request {
    const json_t *manifest;    /* checked object */
    const char *manifest_yaml; /* text to keep: as submitted when the client sent it, else made from
                                  the object */
    const json_t *git_credentials; /* {username,password} or NULL */
    const json_t *secret_vars;     /* {build_env:{},runtime_env:{}} or NULL */
    struct context *context;       /* NULL: clone git; what it must not hold is taken out */
    bool force;
    const char *build_flags; /* "" or "--no-cache" */
};
/* *ret_id owned: the deployment's id. 409 while another is in progress or the version exists (use
 * --force), 403, 422, 503. */
int deploy_submit(struct lifecycle *lc, const struct subject *who,
                  const struct deploy_request *request, char **ret_id,
                  struct trk_err *err) TRK_MUST_CHECK;
/* From the stored manifest, source and secrets. kind: "redeploy" (rebuild) or "reprovision" (stored
 * image). */
int deploy_resubmit(struct lifecycle *lc, const struct subject *who, const char *kind,
                    const char *name, const char *version, char **ret_id,
                    struct trk_err *err) TRK_MUST_CHECK;
/* Waits until the deployment leaves (status, phase) or timeout_ms passed; for long-polling. 0 in
 * both cases. */
int deploy_wait_change(struct lifecycle *lc, const char *id, const char *status, const char *phase,
                       int64_t timeout_ms, struct trk_err *err) TRK_MUST_CHECK;
/* Something about a deployment may have changed: those who wait for one here look again. */
void deploy_notify(struct lifecycle *lc);
/* Deletes a job: workload stopped (drained), row moved to the trash, audit. Idempotent. An
 * in-progress deployment of it: 409. */
int deploy_delete(struct lifecycle *lc, const struct subject *who, const char *name,
                  const char *version, struct trk_err *err) TRK_MUST_CHECK;

/* Appends the last `tail` lines (0: all kept) of what the job's generation has put out, wherever it
 * runs; nothing when it has none yet. */
int deploy_job_logs(struct lifecycle *lc, const char *name, const char *version, size_t tail,
                    struct trk_buf *out, struct trk_err *err) TRK_MUST_CHECK;

/* After a generation was started: removes it again when it is not wanted any more (its row is gone,
 * or on its way out), which may have happened while it was being started. Nobody else would. */
void deploy_take_back(struct lifecycle *lc, const struct infra_target *target,
                      const char *generation_id);

/* Workers. Start once; stop lets the current step finish up to grace_ms (the rest is taken over
 * through the lease). */
int deploy_start(struct lifecycle *lc, struct trk_err *err) TRK_MUST_CHECK;
void deploy_stop(struct lifecycle *lc, int64_t grace_ms);

#endif
