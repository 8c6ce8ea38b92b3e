/*
 * sandbox.h - commands of a build that run somebody else's code: an unprivileged user in namespaces
 * of its own, which sees the machine's programs and the build's folder, reaches what proxy.h lets
 * it reach, and has limits of memory, CPU, processes, disk and time. Any thread.
 */
#ifndef IMAGE_BUILDER_BUILD_SANDBOX_H
#define IMAGE_BUILDER_BUILD_SANDBOX_H

#include "image_builder/build/build.h"

#define BUILD_PROXY_PORT "3128" /* on loopback in the sandbox; the launcher listens there */

struct network_rules;

struct confined_command {
    const struct trk_args *argv; /* argv[0] is an absolute path */
    const struct trk_args *env;
    const char *cwd;
    const char *const *writable; /* folders, NULL-terminated; given to the build's user */
    struct network_rules *rules; /* taken; NULL: no network */
    int64_t timeout_s;
};
/* Runs it to its end, output into the build's log. TRK_INVALID where there is no sandbox, with the
 * reason; TRK_TOO_LARGE and TRK_TIMEOUT name the limit that was met. */
int build_run_confined(struct build *build, const struct confined_command *command, int *ret_status,
                       struct trk_err *err) TRK_MUST_CHECK;
bool build_is_sandboxed(const struct builder_config *config);
/* Is the proxy the only way out, and are proxy variables therefore ours to set? */
bool build_has_proxy(const struct builder_config *config);
/* 0, or why builds that run code are refused here (also said in the log at start). */
int build_sandbox_check(const struct builder_config *config, struct trk_err *err) TRK_MUST_CHECK;

#endif
