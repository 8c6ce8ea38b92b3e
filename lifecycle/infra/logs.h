/*
 * logs.h - the output of a job's workload, wherever it runs.
 */
#ifndef LIFECYCLE_INFRA_LOGS_H
#define LIFECYCLE_INFRA_LOGS_H

#include <stddef.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"

struct lifecycle;

/* Appends the last `tail` lines (0: all kept). No generation yet: nothing. */
int infra_job_logs(const struct lifecycle *lc, const char *target_name, const char *generation_id,
                   size_t tail, struct trk_buf *out, struct trk_err *err) TRK_MUST_CHECK;

#endif
