/*
 * targets.h - makes the configured infrastructure targets: the one place that knows their kinds.
 */
#ifndef LIFECYCLE_TARGETS_H
#define LIFECYCLE_TARGETS_H

#include "libtrack/base/err.h"

struct lifecycle;

/* Fills lc->targets. Called once, before deploy_start; needs no database. */
int targets_start(struct lifecycle *lc, struct trk_err *err) TRK_MUST_CHECK;

#endif
