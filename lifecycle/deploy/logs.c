#include <talloc.h>

#include "libtrack/base/mem.h"
#include "lifecycle/deploy/deploy.h"
#include "lifecycle/infra/registry.h"
#include "lifecycle/lifecycle.h"
#include "lifecycle/store/generation.h"
#include "lifecycle/store/job.h"

int deploy_job_logs(struct lifecycle *lc, const char *name, const char *version, size_t tail,
                    struct trk_buf *out, struct trk_err *err)
{
    void *mem = talloc_new(NULL);
    struct job *job = NULL;
    struct generation *g = NULL;
    trk_pg_auto struct trk_pg *conn = NULL;
    int code = trk_pg_acquire(lc->pool, &conn, err);
    if (code == 0) {
        code = job_store_get(conn, mem, name, version, &job, err);
    }
    if (code == 0 && job->generation_id != NULL) {
        code = generation_store_get(conn, mem, job->generation_id, &g, err);
    }
    trk_pg_release(TRK_STEAL(conn)); /* reading the log may take its time */
    if (code == 0 && g != NULL) {
        code = infra_logs(&lc->targets, g->target_instance, g->id, tail, out, err);
    }
    talloc_free(mem);
    return code;
}
