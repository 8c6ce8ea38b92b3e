/*
 * delete.c - a job goes: its row at once, its workload as soon as its calls are done.
 */
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "lifecycle/config.h"
#include "lifecycle/deploy/deploy.h"
#include "lifecycle/deploy/rules.h"
#include "lifecycle/deploy/work.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/store/event.h"
#include "lifecycle/store/job.h"
#include "lifecycle/store/setting.h"

enum { WAIT_GONE_MS = 2000 };

struct deletion {
    void *mem;
    const struct subject *who;
    const char *name, *version;
    struct generation *generations;
    size_t count;
};

static int do_delete(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct deletion *d = ctx;
    struct job *job;
    bool is_busy = false;
    int rc = setting_store_refuse_in_maintenance(conn, err);
    rc = rc == 0 ? queue_is_in_progress(conn, d->name, d->version, &is_busy, err) : rc;
    if (rc == 0 && is_busy) {
        return trk_err_set(err, TRK_CONFLICT,
                           "job %s %s is just being deployed; delete it when that has ended",
                           d->name, d->version);
    }
    rc = rc == 0 ? job_store_get(conn, d->mem, d->name, d->version, &job, err) : rc;
    bool was_there = rc == 0;
    rc = rc == TRK_NOT_FOUND ? 0 : rc;
    rc = rc == 0 ? generation_store_list(conn, d->mem, d->name, d->version, &d->generations,
                                         &d->count, err)
                 : rc;
    for (size_t i = 0; rc == 0 && i < d->count; i++) {
        rc = generation_store_set(conn, d->generations[i].id, GENERATION_REMOVING, err);
    }
    if (rc == 0 && was_there) {
        rc = job_store_delete(conn, d->name, d->version, true, err);
        rc = rc == 0 ? secret_store_delete_job(conn, d->name, d->version, err) : rc;
        rc = rc == 0 ? audit_store_add(conn, "job_deleted", d->who->name, NULL, d->name, d->version,
                                       NULL, err)
                     : rc;
    }
    return rc;
}

static bool is_gone(const struct infra_target *t, const char *id)
{
    struct infra_observation seen;
    struct trk_err err = {0};
    int rc = infra_observe(t, id, &seen, &err);
    return rc == TRK_NOT_FOUND || (rc == 0 && seen.state == INFRA_GONE);
}

/* What does not go in time goes later: the supervisor finishes generations in state removing. */
static void end_workload(struct lifecycle *lc, const struct generation *g, int64_t deadline)
{
    struct trk_err err = {0};
    const struct infra_target *t = infra_reached(&lc->targets, g->target_instance);
    if (t == NULL) {
        return;
    }
    while (!is_gone(t, g->id) && trk_now_ns() < deadline) {
        trk_sleep_ms(5);
    }
    trk_pg_auto struct trk_pg *conn = NULL;
    if (is_gone(t, g->id) &&
        (t->remove(t, g->id, &err) < 0 || trk_pg_acquire(lc->pool, &conn, &err) < 0 ||
         generation_store_delete(conn, g->id, &err) < 0)) {
        trk_log_warn("a deleted job's workload remains for now", "generation", g->id, "error",
                     err.text, NULL);
    }
}

void deploy_take_back(struct lifecycle *lc, const struct infra_target *target, const char *id)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct trk_err err = {0};
    struct generation *g;
    void *mem = talloc_new(NULL);
    int rc = trk_pg_acquire(lc->pool, &conn, &err);
    rc = rc == 0 ? generation_store_get(conn, mem, id, &g, &err) : rc;
    bool is_unwanted = rc == TRK_NOT_FOUND ||
                       (rc == 0 && strcmp(g->state, GENERATION_REMOVING) == 0);
    if (is_unwanted && target->remove(target, id, &err) < 0) {
        trk_log_warn("a workload that was taken back meanwhile remains", "generation", id, "error",
                     err.text, NULL);
    }
    talloc_free(mem);
}

int deploy_delete(struct lifecycle *lc, const struct subject *who, const char *name,
                  const char *version, struct trk_err *err)
{
    struct deletion d = {.who = who, .name = name, .version = version};
    int rc = rules_require(who, SCOPE_DELETE_JOB, name, version, err);
    if (rc < 0) {
        return rc;
    }
    d.mem = talloc_new(NULL);
    rc = trk_pg_transaction(lc->pool, do_delete, &d, err);
    if (rc == 0) {
        int64_t deadline = trk_now_ns() + WAIT_GONE_MS * TRK_NS_PER_MS;
        for (size_t i = 0; i < d.count; i++) {
            const struct infra_target *t = infra_reached(&lc->targets,
                                                         d.generations[i].target_instance);
            struct trk_err why = {0};
            if (t != NULL &&
                t->stop(t, d.generations[i].id, lc->config->drain_grace_ms, &why) < 0) {
                trk_log_warn("a deleted job cannot be stopped", "generation", d.generations[i].id,
                             "error", why.text, NULL);
            }
        }
        for (size_t i = 0; i < d.count; i++) {
            end_workload(lc, &d.generations[i], deadline);
        }
        trk_log_info("job deleted", "job", name, "version", version, "by", who->name, NULL);
    }
    talloc_free(d.mem);
    return rc;
}
