/*
 * call.h - may somebody call a job? Everything that the answer needs, in one statement.
 */
#ifndef LIFECYCLE_STORE_CALL_H
#define LIFECYCLE_STORE_CALL_H

#include "libtrack/pg/pg.h"
#include "lifecycle/domain/subject.h"
#include "lifecycle/store/job.h"

struct call_question {
    bool is_maintenance; /* of the whole platform */
    struct job *job;     /* where it is, not what is in it (manifest, error …); or NULL */
    const char *public_endpoints; /* the active ones, a line each; or NULL */
    struct subject *caller;       /* with the permissions that concern calls of this job; or NULL */
    struct trk_err job_err, caller_err; /* why there is none */
};
/* `version` may be an alias (then it takes two statements). `token`: its text, NULL for none.
 * `ret` hangs on mem. Fails only when the database does. */
int call_store_ask(struct trk_pg *conn, void *mem, const char *name, const char *version,
                   const char *token, struct call_question *ret,
                   struct trk_err *err) TRK_MUST_CHECK;

#endif
