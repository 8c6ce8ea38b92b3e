/*
 * spec.h - what a generation runs with: environment, resources, and the digest of it all. Any
 * thread.
 */
#ifndef LIFECYCLE_DEPLOY_SPEC_H
#define LIFECYCLE_DEPLOY_SPEC_H

#include <jansson.h>

#include "libtrack/base/crypto.h"
#include "lifecycle/config.h"
#include "lifecycle/infra/target.h"

struct spec_input {
    const json_t *manifest;    /* checked */
    const char *manifest_yaml; /* the submitted text */
    const json_t *secrets;     /* deploy/secrets.h, or NULL */
    const char *family_token;  /* what the job calls others with */
    const char *image_name, *image_digest;
    const char *generation_id;
    int64_t deployment_timestamp;
};
/* Fills *ret, whose strings hang on `mem` or borrow from the input. ret_digest: the same for the
 * same workload, whatever its generation and timestamp. TRK_SCHEMA for a manifest that asks for too
 * much. */
int spec_make(const struct lifecycle_config *config, void *mem, const struct spec_input *input,
              struct infra_generation_spec *ret, char ret_digest[TRK_DIGEST_SIZE],
              struct trk_err *err) TRK_MUST_CHECK;
/* What spec_make would refuse, before anything is built: resources beyond the limits, variables
 * with names that are Racetrack's own or cannot be set. TRK_SCHEMA listing all faults. */
int spec_check(const struct lifecycle_config *config, const json_t *manifest, const json_t *secrets,
               struct trk_err *err) TRK_MUST_CHECK;
/* name and version of a manifest (version 0.0.1 by default); borrow from it. */
void spec_job(const json_t *manifest, const char **ret_name, const char **ret_version);
/* "python3:latest"; hangs on mem. */
const char *spec_job_type(void *mem, const json_t *manifest);

#endif
