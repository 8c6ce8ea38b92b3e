/*
 * registry.h - the infrastructure targets of this process.
 */
#ifndef LIFECYCLE_INFRA_REGISTRY_H
#define LIFECYCLE_INFRA_REGISTRY_H

#include "libtrack/base/err.h"

struct infra_target;
struct lifecycle;

/* Makes the configured targets and hangs them into lc->targets, lc->target_count. Called once,
 * before deploy_start; needs no database. */
int infra_targets_start(struct lifecycle *lc, struct trk_err *err) TRK_MUST_CHECK;
/* Borrows, valid until the process ends; NULL when there is none of that name. */
const struct infra_target *infra_target_find(const struct lifecycle *lc, const char *name);

#endif
