/*
 * bootstrap.h - what a new installation finds in its database: the administrator.
 */
#ifndef LIFECYCLE_BOOTSTRAP_H
#define LIFECYCLE_BOOTSTRAP_H

#include "libtrack/base/err.h"

struct lifecycle;

/* Makes user admin with full access, unless there are users. In the dev profile with the public
 * password and tokens; otherwise with a random password in $RACETRACK_STATE/admin-password (0600).
 */
int bootstrap_run(struct lifecycle *lc, struct trk_err *err) TRK_MUST_CHECK;

#endif
