/* Commands of a build that are ours (git): a fresh environment, a time limit, the output in the
 * log. */
#include "image_builder/build/build.h"
#include "libtrack/base/proc.h"
#include "libtrack/base/str.h"

void build_on_output(void *ctx, const char *bytes, size_t len)
{
    struct build *build = ctx;
    build_log_add(build->log, bytes, len);
}

void build_on_trouble(void *ctx, const char *text)
{
    struct build *build = ctx;
    build_log_printf(build->log, "%s", text);
}

const char *build_first_setting(const char *const *names)
{
    for (; *names != NULL; names++) {
        const char *value = getenv(*names);
        if (!trk_str_is_empty(value)) {
            return value;
        }
    }
    return NULL;
}

int build_run_command(struct build *build, const struct trk_args *argv, const struct trk_args *env,
                      const char *cwd, int64_t timeout_s, struct trk_buf *output, int *ret_status,
                      struct trk_err *err)
{
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    options.argv = (const char *const *)argv->items;
    options.env = (const char *const *)env->items;
    options.cwd = cwd;
    options.die_with_parent = true;
    return trk_proc_run(&options, NULL, 0, timeout_s * 1000, output,
                        output == NULL ? build_on_output : NULL, build, build->cancel, ret_status,
                        err);
}
