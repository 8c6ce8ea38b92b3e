/*
 * job_ref.h - which job a command means: NAME with --version, or a folder whose manifest names it.
 */
#ifndef CLIENT_JOB_REF_H
#define CLIENT_JOB_REF_H

#include "client/cli.h"
#include "libtrack/base/err.h"

struct job_ref {
    char *name, *version; /* owned */
    char *reading;        /* owned: what the first word was taken for, for an error */
    const char *remote;   /* borrows from cli: the second word, or NULL */
};
/* The folder form: no word at all, a first word with a slash, "." or "..", a folder that holds a
 * manifest, or a manifest file. Else the word is a NAME. `default_version`: with NAME and without
 * --version; NULL: then it is a usage error. */
int job_ref_of(struct job_ref *ref, struct cli *cli, const char *default_version,
               struct trk_err *err) TRK_MUST_CHECK;
/* Says in a TRK_NOT_FOUND how the words were read. Returns the error's code. */
int job_ref_explain(const struct job_ref *ref, struct trk_err *err);
void job_ref_fini(struct job_ref *ref);

#endif
