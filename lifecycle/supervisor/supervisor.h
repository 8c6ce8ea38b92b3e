/*
 * supervisor.h - periodic work of the one elected leader: reconcile desired and observed state,
 * bring crashed or lost jobs back, finish draining generations, clean up (events, sources nobody
 * refers to, old logs), metrics of jobs.
 *
 * Leader by advisory lock on a dedicated connection. A target that cannot be listed leaves its
 * jobs' status alone.
 */
#ifndef LIFECYCLE_SUPERVISOR_SUPERVISOR_H
#define LIFECYCLE_SUPERVISOR_SUPERVISOR_H

#include "libtrack/base/err.h"

struct lifecycle;
int supervisor_start(struct lifecycle *lc, struct trk_err *err) TRK_MUST_CHECK;
void supervisor_stop(struct lifecycle *lc);

#endif
