#include "lifecycle/infra/logs.h"

#include "lifecycle/infra/registry.h"
#include "lifecycle/infra/target.h"
#include "lifecycle/lifecycle.h"

int infra_job_logs(const struct lifecycle *lc, const char *target_name, const char *generation_id,
                   size_t tail, struct trk_buf *out, struct trk_err *err)
{
    if (generation_id == NULL) {
        return 0;
    }
    const struct infra_target *t = target_name != NULL ? infra_target_find(lc, target_name) : NULL;
    if (t != NULL) {
        return t->logs(t, generation_id, tail, out, err);
    }
    return trk_err_set(err, TRK_UNAVAILABLE, "infrastructure target %s is not available here",
                       target_name != NULL ? target_name : "(none)");
}
