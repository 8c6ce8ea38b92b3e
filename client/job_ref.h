/*
 * job_ref.h - which job a command means: NAME with --version, or a folder whose manifest names it.
 */
#ifndef CLIENT_JOB_REF_H
#define CLIENT_JOB_REF_H

#include "client/cli.h"
#include "libtrack/err.h"

struct job_ref {
    char *name, *version; /* owned */
    const char *remote;   /* borrows from cli: the word behind the folder, or NULL */
};
/* A first word with a slash, "." or "..", no word at all, a second word, or a folder that holds a
 * manifest mean the folder form. `default_version`: with NAME and without --version; NULL: then it
 * is a usage error. */
int job_ref_of(struct job_ref *ref, struct cli *cli, const char *default_version,
               struct trk_err *err) TRK_MUST_CHECK;
void job_ref_fini(struct job_ref *ref);

#endif
