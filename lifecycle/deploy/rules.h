/*
 * rules.h - who may deploy what, now: asked when a deployment is submitted and again before it
 * takes effect.
 */
#ifndef LIFECYCLE_DEPLOY_RULES_H
#define LIFECYCLE_DEPLOY_RULES_H

#include "libtrack/pg/pg.h"
#include "lifecycle/domain/subject.h"

/* deploy_job on the job when its family exists, deploy_new_family otherwise. TRK_FORBIDDEN. */
int rules_may_deploy(struct trk_pg *conn, void *mem, const struct subject *who, const char *name,
                     const char *version, struct trk_err *err) TRK_MUST_CHECK;
/* TRK_FORBIDDEN naming subject, scope and job. */
int rules_require(const struct subject *who, const char *scope, const char *name,
                  const char *version, struct trk_err *err) TRK_MUST_CHECK;
/* TRK_INVALID in maintenance mode: a deployment that is on the way ends with it. */
int rules_refuse_in_maintenance(struct trk_pg *conn, struct trk_err *err) TRK_MUST_CHECK;

#endif
