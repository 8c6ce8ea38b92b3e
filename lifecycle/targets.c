#include "lifecycle/targets.h"

#include <errno.h>

#include "libtrack/base/file.h"
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

static int start_process(const struct lifecycle *lc, const struct infra_target **ret,
                         struct trk_err *err)
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
    return infra_process_new(&options, ret, err);
}

static int (*const kinds[])(const struct lifecycle *lc, const struct infra_target **ret,
                            struct trk_err *err) = {
    start_process,
};

int targets_start(struct lifecycle *lc, struct trk_err *err)
{
    const struct infra_target **list = trk_xcalloc(TRK_COUNT(kinds), sizeof(*list));
    for (size_t i = 0; i < TRK_COUNT(kinds); i++) {
        int rc = kinds[i](lc, &list[i], err);
        if (rc < 0) {
            free(list);
            return rc;
        }
    }
    lc->targets = (struct infra_registry){.list = list, .count = TRK_COUNT(kinds)};
    return 0;
}
