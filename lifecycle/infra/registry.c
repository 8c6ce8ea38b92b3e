#include "lifecycle/infra/registry.h"

#include <errno.h>

#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/manifest/manifest.h"
#include "lifecycle/config.h"
#include "lifecycle/infra/process/process.h"
#include "lifecycle/lifecycle.h"

/* Owned path of the job wrapper: as configured, or beside this executable. */
static char *wrapper_path(const struct lifecycle_config *config)
{
    if (config->job_wrapper[0] != '\0') {
        return trk_xstrdup(config->job_wrapper);
    }
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    exe[n > 0 ? n : 0] = '\0';
    char *cut = strrchr(exe, '/');
    return trk_xasprintf("%.*s/job_wrapper", cut != NULL ? (int)(cut - exe) : 0, exe);
}

/* Of a quantity that the configuration's check has passed. */
static int64_t bytes_of(const char *quantity)
{
    int64_t milli = 0;
    return trk_quantity_parse(quantity, &milli, NULL) == 0 ? milli / 1000 : 0;
}

int infra_targets_start(struct lifecycle *lc, struct trk_err *err)
{
    const struct lifecycle_config *config = lc->config;
    int rc = trk_mkdir_p(config->state_dir, 0755, err);
    if (rc < 0) {
        return rc;
    }
    trk_autofree char *state_dir = realpath(config->state_dir, NULL);
    if (state_dir == NULL) {
        return trk_err_errno(err, errno, "state folder %s", config->state_dir);
    }
    trk_autofree char *wrapper = wrapper_path(config);
    struct infra_process_options options = {
        .state_dir = state_dir,
        .wrapper = wrapper,
        .is_sandboxed = strcmp(config->process_sandbox, "on") == 0,
        .job_user = config->process_job_user,
        .image_store_url = config->image_builder_url,
        .token = lc->internal_token,
        .secret_key = lifecycle_secret_key(config),
        .limits = {.pids = config->process_pids_max,
                   .files = config->process_files_max,
                   .tmp_bytes = bytes_of(config->process_tmp_max),
                   .disk_bytes = bytes_of(config->process_disk_max),
                   .log_bytes_s = bytes_of(config->process_log_rate)},
    };
    const struct infra_target *process = NULL;
    rc = infra_process_new(&options, &process, err);
    if (rc < 0) {
        return rc;
    }
    const struct infra_target **targets = trk_xcalloc(1, sizeof(*targets));
    targets[0] = process;
    lc->targets = targets;
    lc->target_count = 1;
    return 0;
}

const struct infra_target *infra_target_find(const struct lifecycle *lc, const char *name)
{
    for (size_t i = 0; i < lc->target_count; i++) {
        if (strcmp(lc->targets[i]->name, name) == 0) {
            return lc->targets[i];
        }
    }
    return NULL;
}
