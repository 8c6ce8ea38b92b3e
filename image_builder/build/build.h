/*
 * build.h - one build: from a source and a manifest to an image in the store.
 *
 * build_run does the steps in order; each step is in a file of its own and works on struct build.
 * A build belongs to one thread. What it makes is found by content, so building the same again
 * gives the same digest and costs little; a build that is cut off leaves nothing but a workspace,
 * which the next start removes.
 */
#ifndef IMAGE_BUILDER_BUILD_BUILD_H
#define IMAGE_BUILDER_BUILD_BUILD_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "image_builder/build/depot.h"
#include "image_builder/build/log.h"
#include "image_builder/image_builder.h"
#include "libtrack/base/args.h"
#include "libtrack/manifest/manifest.h"
#include "libtrack/oci/oci.h"

/* Strings borrow from the request's JSON. */
struct build_request {
    const json_t *manifest;
    const char *manifest_yaml; /* NULL: made from the object */
    const char *git_username, *git_password;
    const json_t *secret_build_env; /* object of strings, or NULL */
    const char *tag;
    const char *source_digest; /* of a tar or tar.gz among the sources, or NULL: git */
    const char *deployment_id;
    bool no_cache;
};
/* Reads and checks the request's body (schema checked before). */
int build_request_read(const json_t *body, struct build_request *ret,
                       struct trk_err *err) TRK_MUST_CHECK;

struct build {
    struct image_builder *ib;
    struct build_request request;
    const char *job_name, *job_version;
    struct trk_python_spec python;
    struct build_log *log;
    struct build_secrets secrets;
    const atomic_bool *cancel;
    void (*on_phase)(void *ctx, const char *phase); /* may be NULL */
    void *ctx;
    char phase[64];
    int64_t phase_ns;
    char *workspace;   /* folder of this build */
    char *folder;      /* the job's folder in it */
    int folder_fd;     /* of it; -1 before the source is there */
    char version[128]; /* of the source: git describe, or "tar" */
    struct trk_buf warnings;
    struct depot_layer *code_layer; /* the code layer; stored together with the image */
    struct trk_oci_descriptor code, dependencies; /* the latter without a digest: none */
    /* the result */
    char image_name[1024];
    char image_digest[TRK_DIGEST_SIZE];
};

/* Runs all steps. The caller has filled ib, request, log, cancel, on_phase; the rest is done and
 * undone here but for warnings, image_name, image_digest, secrets (build_fini). */
int build_run(struct build *build, struct trk_err *err) TRK_MUST_CHECK;
void build_init(struct build *build);
void build_fini(struct build *build);

/* -- steps -- */
void build_begin_phase(struct build *build, const char *phase);
/* A line of the log and of the deployment's warnings. */
void build_warn(struct build *build, const char *fmt, ...) TRK_PRINTF(2, 3);
int build_check_cancel(const struct build *build, struct trk_err *err) TRK_MUST_CHECK;
/* Is the job type one that this set-up builds, and the manifest free of what it does not? */
int build_check_job_type(struct build *build, struct trk_err *err) TRK_MUST_CHECK;
/* Puts the source into the workspace; sets folder, folder_fd, version. */
int build_fetch_source(struct build *build, struct trk_err *err) TRK_MUST_CHECK;
int build_git_clone(struct build *build, const char *into, struct trk_err *err) TRK_MUST_CHECK;
/* Warns when the repository's manifest is not the submitted one. */
void build_compare_manifest(struct build *build);
/* job.yaml = the submitted text; files that hold secrets are taken out; the files that the manifest
 * names must be there. */
int build_prepare_folder(struct build *build, struct trk_err *err) TRK_MUST_CHECK;
/* Adds the layer of installed requirements, when there are any. */
int build_add_requirements(struct build *build, struct trk_err *err) TRK_MUST_CHECK;
int build_add_code(struct build *build, struct trk_err *err) TRK_MUST_CHECK;
int build_make_image(struct build *build, struct trk_err *err) TRK_MUST_CHECK;

/* Name of the job's repository: "<namespace>/" BUILD_REPOSITORIES "/<name>"; a job name that no
 * repository may have is replaced by an unlike one that may. */
#define BUILD_REPOSITORIES "job-entrypoint"
void build_repository(const char *namespace, const char *job_name, char out[256]);
/* The Python that jobs run on, "3.11". */
int build_python_version(char out[16], struct trk_err *err) TRK_MUST_CHECK;
/* Refuses text that is no plain relative path: "", absolute, "..", a control character. */
int build_check_path(const char *what, const char *path, struct trk_err *err) TRK_MUST_CHECK;

/* -- pip.c -- */
#define BUILD_PYTHON           "/usr/bin/python3"
#define BUILD_REQUIREMENTS_MAX (1U << 20)
/* The variables that decide what pip does: the service's, then the job's. */
void build_pip_settings(const struct build *build, struct trk_args *settings);
/* Installs the job's requirements file, whose text is `requirements`, into the folder `target`. */
int build_run_pip(struct build *build, const char *requirements, const char *target,
                  const char *cache, struct trk_err *err) TRK_MUST_CHECK;

/* -- command.c: commands of a build; sandbox.h has those that run its code -- */
/* Is this "NAME=value" of the service's environment one that pip gets (PIP_…, proxies, CAs)? */
bool build_is_passed_on(const char *setting);
/* Runs to the end; output (both streams) goes to `output`, or to the log when that is NULL. */
int build_run_command(struct build *build, const struct trk_args *argv, const struct trk_args *env,
                      const char *cwd, int64_t timeout_s, struct trk_buf *output, int *ret_status,
                      struct trk_err *err) TRK_MUST_CHECK;

void build_on_output(void *build, const char *bytes, size_t len); /* into its log */
void build_on_trouble(void *build, const char *text);             /* of a proxy: the same */
/* The first of the environment's variables that is set and not empty; NULL: none. */
const char *build_first_setting(const char *const *names);

/* Removes pip's caches of job families that no build used for so long (0: none). */
int build_pip_cache_prune(const char *folder, int64_t hours, struct trk_err *err) TRK_MUST_CHECK;

#endif
