/*
 * manifest.h - the job manifest (job.yaml): schema, rules, defaults. Any thread.
 *
 * One set of rules for client and server. trk_manifest_check lists every fault with its path:
 * unknown key (with the nearest known one), wrong type, SemVer, git remote, resource quantities and
 * limits, exactly one of jobtype/lang, job type extras exclusive with the deprecated sections, job
 * type specific keys of jobtype_extra.
 */
#ifndef LIBTRACK_MANIFEST_H
#define LIBTRACK_MANIFEST_H

#include <jansson.h>
#include <stdint.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"
#include "libtrack/data/schema.h"

/* 0 or TRK_SCHEMA. `faults` and `warnings` (deprecated keys) are added to. `manifest` borrows. */
int trk_manifest_check(const json_t *manifest, struct trk_faults *faults,
                       struct trk_faults *warnings);
/* YAML text -> checked manifest object; *ret owned. The error lists all faults. */
int trk_manifest_parse(const char *yaml, size_t len, const char *file_name, json_t **ret,
                       struct trk_err *err) TRK_MUST_CHECK;
/* Loads job.yaml or fatman.yaml from a folder (or a file path), applies `extends` and extra vars
 * ("a.b=value", NULL-terminated or NULL), checks. *ret owned; *ret_path owned (may be NULL to ask
 * not). For the client only: `extends` may lead out of the folder, so that a service must not load
 * what others wrote (it parses). */
int trk_manifest_load(const char *path, const char *const *extra_vars, json_t **ret,
                      char **ret_path, struct trk_faults *warnings,
                      struct trk_err *err) TRK_MUST_CHECK;

/* Resource quantity such as 256Mi, 10m, 1.5 (suffixes E P T G M k m u n p Ei Pi Ti Gi Mi Ki) in
 * thousandths of the unit (bytes or cores), rounded up: 10m -> 10, 1 -> 1000. TRK_INVALID on bad
 * text or overflow. */
int trk_quantity_parse(const char *text, int64_t *ret_milli, struct trk_err *err) TRK_MUST_CHECK;

/* The job's version; TRK_MANIFEST_VERSION when the manifest names none. Borrows. */
#define TRK_MANIFEST_VERSION "0.0.1"
const char *trk_manifest_version(const json_t *manifest);

/* What is accepted and does not take effect as written (a pinned version of a job type that is not
 * the installed one, settings of other base images): added to `notes`, one each. */
void trk_manifest_note_ignored(const json_t *manifest, struct trk_faults *notes);

/* The job type as a plain record, whichever era's spelling the manifest uses ("python3" for `lang:
 * python3` too). Strings borrow from the manifest, valid until it goes; NULL when absent. */
struct trk_python_spec {
    const char *entrypoint_path, *entrypoint_class, *requirements_path, *home_page;
    int64_t max_concurrency, max_concurrency_queue; /* 0: unlimited; -1: absent */
    int64_t request_timeout_s;                      /* 0: absent */
};
/* TRK_INVALID for a job type that is not available. */
int trk_manifest_job_type(const json_t *manifest, const char **ret_name, const char **ret_version,
                          struct trk_err *err) TRK_MUST_CHECK;
int trk_manifest_python(const json_t *manifest, struct trk_python_spec *ret,
                        struct trk_err *err) TRK_MUST_CHECK;
/* Every field of the original's manifest, missing ones null (what the API shows). Returns owned. */
json_t *trk_manifest_full(const json_t *manifest);
/* The resource name of a job, a DNS label: "job-<name>-v-<version>" with '-' for '.' when the
 * version is plain X.Y.Z; else that, cut, and a digest, so that no two jobs share a name. Appends.
 */
int trk_manifest_resource_name(const char *name, const char *version, struct trk_buf *buf);

#endif
