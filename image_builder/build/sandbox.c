/* Commands that a build runs: with a fresh environment, and what runs a user's code (pip) in
 * bubblewrap where that works. */
#include <ftw.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image_builder/build/build.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/proc.h"
#include "libtrack/base/str.h"
#include "libtrack/sandbox/sandbox.h"

extern char **environ;

/* Covers what only root may read: password hashes, private keys. */
static __thread struct trk_args *covers;

static int cover(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)ftw;
    if (type == FTW_D && (st->st_mode & S_IXOTH) == 0) {
        TRK_ARGS_ADD(covers, "--tmpfs", path);
        return FTW_SKIP_SUBTREE;
    }
    if (type == FTW_F && (st->st_mode & S_IROTH) == 0) {
        TRK_ARGS_ADD(covers, "--ro-bind", "/dev/null", path);
    }
    return FTW_CONTINUE;
}

static void add_covers(struct trk_args *argv)
{
    if (geteuid() == 0) {
        covers = argv;
        (void)nftw("/etc", cover, 16, FTW_PHYS | FTW_ACTIONRETVAL);
        covers = NULL;
    }
}

/* Files and folders that the service's own pip settings name (PIP_FIND_LINKS, SSL_CERT_FILE, …). */
static void show_named_by_settings(struct trk_args *argv)
{
    for (char **e = environ; *e != NULL; e++) {
        const char *value = strchr(*e, '=');
        if (value == NULL || !build_is_passed_on(*e)) {
            continue;
        }
        for (value++; *value != '\0'; value += strspn(value, " \t\n,")) {
            size_t len = strcspn(value, " \t\n,");
            trk_autofree char *word = trk_xstrndup(value, len);
            const char *path = trk_str_has_prefix(word, "file://") ? word + strlen("file://")
                                                                   : word;
            if (path[0] == '/' && path[1] != '\0') {
                trk_sandbox_show_if_there(argv, path);
            }
            value += len;
        }
    }
}

static void add_confinement(const struct builder_config *config, struct trk_args *argv)
{
    const struct trk_sandbox sandbox = {.hidden = config->state_dir};
    trk_sandbox_begin(&sandbox, argv);
    add_covers(argv);
    show_named_by_settings(argv);
}

static bool sandbox_works;

/* Whether bubblewrap works depends on the kernel and on the container around: tried once. */
static void probe_sandbox(void)
{
    TRK_ARGS_AUTO(argv);
    const struct trk_sandbox sandbox = {0};
    trk_sandbox_begin(&sandbox, &argv);
    trk_args_add(&argv, "/bin/true");
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    options.argv = (const char *const *)argv.items;
    struct trk_err err = {0};
    sandbox_works = trk_sandbox_probe(&options, &err) == 0;
    if (!sandbox_works) {
        trk_log_warn("bubblewrap does not work here: requirements are installed without it",
                     "reason", err.text, NULL);
    }
}

int build_sandbox_prefix(const struct builder_config *config, const char *const *writable,
                         struct trk_args *argv, struct trk_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (strcmp(config->build_sandbox, "off") == 0) {
        return 0;
    }
    (void)pthread_once(&once, probe_sandbox);
    if (!sandbox_works) {
        return strcmp(config->build_sandbox, "on") == 0
                   ? trk_err_set(err, TRK_UNAVAILABLE,
                                 "BUILD_SANDBOX is on, but bubblewrap does not work on this "
                                 "machine: install it (apt-get install bubblewrap) and allow user "
                                 "namespaces, or set BUILD_SANDBOX=auto")
                   : 0;
    }
    add_confinement(config, argv);
    for (; *writable != NULL; writable++) {
        trk_sandbox_show(argv, *writable, *writable, true);
    }
    trk_args_add(argv, "--");
    return 0;
}

static void on_output(void *ctx, const char *bytes, size_t len)
{
    struct build *build = ctx;
    build_log_add(build->log, bytes, len);
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
                        output == NULL ? on_output : NULL, build, build->cancel, ret_status, err);
}
