#include "image_builder/build/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "image_builder/build/proxy.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/proc.h"
#include "libtrack/base/str.h"
#include "libtrack/base/tree.h"
#include "libtrack/sandbox/cgroup.h"
#include "libtrack/sandbox/sandbox.h"
#include "libtrack/sandbox/userns.h"

#define LAUNCHER      "/run/racetrack/build_launch"
#define PROXY_SOCKET  "/run/racetrack/proxy.sock"
#define TMP_BYTES_MAX (UINT64_C(256) << 20) /* what is large goes to $TMPDIR, in the workspace */
#define USERNS_FD     3
#define MEASURE_MS    500
#define FREE_BYTES    (UINT64_C(1) << 30) /* is left to others, or a twentieth of a small disk */

extern char **environ;

/* What this machine can do; found out once. */
static struct {
    pthread_mutex_t lock;
    bool is_known;
    int rc; /* of the sandbox */
    struct trk_err err;
    bool outer_proc, change_user;
    uid_t uid;
    gid_t gid;
    char *launcher;
    struct trk_cgroups cgroups;
} here = {.lock = PTHREAD_MUTEX_INITIALIZER};

bool build_is_sandboxed(const struct builder_config *config)
{
    return strcmp(config->build_sandbox, "off") != 0;
}

bool build_has_proxy(const struct builder_config *config)
{
    return build_is_sandboxed(config) && strcmp(config->build_network, "host") != 0 &&
           strcmp(config->build_network, "none") != 0;
}

/* ---- the argv ---- */

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

static void add_launcher(const struct builder_config *config, const char *socket, const char *cwd,
                         struct trk_args *argv)
{
    bool is_memory_limited = here.cgroups.version > 0;
    TRK_ARGS_ADD(argv, "--", LAUNCHER);
    trk_args_addf(argv, "%ld", here.change_user ? (long)here.uid : -1L);
    trk_args_addf(argv, "%ld", here.change_user ? (long)here.gid : -1L);
    trk_args_addf(argv, "%lld", (long long)config->build_pids_max);
    trk_args_addf(argv, "%lld",
                  is_memory_limited ? 0LL : (long long)config->build_memory_max_bytes);
    trk_args_addf(argv, "%lld", (long long)config->build_disk_max_bytes);
    TRK_ARGS_ADD(argv, socket, cwd);
}

/* All before the launcher: what is shown is up to the caller. */
static void begin(const struct builder_config *config, bool outer_proc, struct trk_args *argv)
{
    const struct trk_sandbox sandbox = {.hidden = config->state_dir,
                                        .own_user = !here.change_user,
                                        .userns_fd = here.change_user ? USERNS_FD : 0,
                                        .no_network = strcmp(config->build_network, "host") != 0,
                                        .outer_proc = outer_proc,
                                        .may_change_user = here.change_user,
                                        .tmp_bytes_max = TMP_BYTES_MAX};
    trk_sandbox_begin(&sandbox, argv);
    trk_sandbox_show(argv, here.launcher, LAUNCHER, false);
}

/* ---- does it work here? ---- */

static int find_user(const char *user, struct trk_err *err)
{
    int64_t number;
    if (geteuid() != 0) {
        return 0;
    }
    if (trk_parse_int64(user, 0, INT32_MAX, &number, NULL) == 0) {
        here.uid = (uid_t)number;
        here.gid = (gid_t)number;
    } else {
        struct passwd entry, *found = NULL;
        char buffer[4096];
        if (getpwnam_r(user, &entry, buffer, sizeof(buffer), &found) != 0 || found == NULL) {
            return trk_err_set(err, TRK_UNAVAILABLE, "BUILD_USER: there is no user %s here", user);
        }
        here.uid = found->pw_uid;
        here.gid = found->pw_gid;
    }
    here.change_user = true;
    return here.uid != 0
               ? 0
               : trk_err_set(err, TRK_UNAVAILABLE, "BUILD_USER is root: name an ordinary user");
}

static void find_launcher(void)
{
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    exe[n > 0 ? n : 0] = '\0';
    const char *cut = strrchr(exe, '/');
    here.launcher = trk_xasprintf("%.*s/build_launch", cut != NULL ? (int)(cut - exe) : 0, exe);
}

static int probe(const struct builder_config *config, bool outer_proc, struct trk_err *err)
{
    trk_autoclose int userns = -1;
    if (here.change_user && trk_userns_new(here.uid, here.gid, &userns, err) < 0) {
        return err->code;
    }
    TRK_ARGS_AUTO(argv);
    begin(config, outer_proc, &argv);
    add_launcher(config, "-", "/", &argv);
    trk_args_add(&argv, "/usr/bin/true");
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    const struct trk_proc_fd fd = {userns, USERNS_FD};
    options.argv = (const char *const *)argv.items;
    options.fds = &fd;
    options.fd_count = userns >= 0 ? 1 : 0;
    options.cwd = "/";
    return trk_sandbox_probe(&options, err);
}

static int find_out(const struct builder_config *config, struct trk_err *err)
{
    static const char *const networks[] = {"none", "index", "public", "host"};
    bool is_network = false;
    for (size_t i = 0; i < TRK_COUNT(networks); i++) {
        is_network = is_network || strcmp(config->build_network, networks[i]) == 0;
    }
    if (!is_network) {
        return trk_err_set(err, TRK_UNAVAILABLE,
                           "BUILD_NETWORK is '%s': it must be none, index, public or host",
                           config->build_network);
    }
    trk_cgroups_detect(&here.cgroups);
    find_launcher();
    int rc = find_user(config->build_user, err);
    if (rc == 0 && access(here.launcher, X_OK) < 0) {
        rc = trk_err_set(err, TRK_UNAVAILABLE, "%s is missing", here.launcher);
    }
    if (rc < 0) {
        return rc;
    }
    struct trk_err second = {0};
    rc = probe(config, false, err);
    if (rc < 0 && probe(config, true, &second) == 0) {
        here.outer_proc = true;
        rc = 0;
    }
    return rc;
}

int build_sandbox_check(const struct builder_config *config, struct trk_err *err)
{
    if (!build_is_sandboxed(config)) {
        return 0;
    }
    (void)pthread_mutex_lock(&here.lock);
    if (!here.is_known) {
        here.rc = find_out(config, &here.err);
        here.is_known = true;
    }
    (void)pthread_mutex_unlock(&here.lock);
    /* Not "unavailable": to try again is of no use until the operator has done something. */
    return here.rc < 0 ? trk_err_set(err, TRK_INVALID,
                                     "builds that run code are refused, because their sandbox does "
                                     "not work here: %s. (BUILD_SANDBOX=off of image_builder runs "
                                     "them without one.)",
                                     here.err.text)
                       : 0;
}

/* ---- limits ---- */

/* One command under way. */
struct confined {
    struct build *build;
    const struct confined_command *command;
    char group[64];
    char *cgroup_files[TRK_CGROUP_PATHS_MAX];
    struct proxy *proxy;
    char *proxy_folder;
    int userns;
    int64_t next_measure_ns;
};

static int check_free_space(const struct confined *c, struct trk_err *err)
{
    struct statvfs fs;
    if (statvfs(c->build->workspace, &fs) < 0) {
        return 0;
    }
    uint64_t size = (uint64_t)fs.f_blocks * fs.f_frsize, left = (uint64_t)fs.f_bavail * fs.f_frsize;
    uint64_t least = size / 20 < FREE_BYTES ? size / 20 : FREE_BYTES;
    return left >= least
               ? 0
               : trk_err_set(err, TRK_NO_SPACE,
                             "the build was ended: image_builder's disk is nearly full (%s left)",
                             trk_size_text(left).text);
}

/* Looks at the disk often, at the build's files as often as they can be counted. */
static int on_tick(void *ctx, struct trk_err *err)
{
    struct confined *c = ctx;
    const struct builder_config *config = c->build->ib->config;
    int64_t began_ns = trk_now_ns();
    int rc = check_free_space(c, err);
    if (rc < 0 || began_ns < c->next_measure_ns) {
        return rc;
    }
    struct trk_tree_usage usage = {0};
    for (const char *const *folder = c->command->writable; *folder != NULL && rc == 0; folder++) {
        rc = trk_tree_measure(*folder, &usage, err);
    }
    int64_t now_ns = trk_now_ns();
    c->next_measure_ns = now_ns + MEASURE_MS * TRK_NS_PER_MS + 10 * (now_ns - began_ns);
    if (rc < 0) {
        return trk_err_set(err, TRK_TOO_LARGE, "the build was ended: %s", err->text);
    }
    if (usage.bytes > (uint64_t)config->build_disk_max_bytes) {
        return trk_err_set(err, TRK_TOO_LARGE,
                           "the build was ended: it had %s on disk, at most %s are allowed "
                           "(build_disk_max_bytes of image_builder)",
                           trk_size_text(usage.bytes).text,
                           trk_size_text((uint64_t)config->build_disk_max_bytes).text);
    }
    if (usage.entries > (uint64_t)config->build_files_max) {
        return trk_err_set(err, TRK_TOO_LARGE,
                           "the build was ended: it had %llu files, at most %lld are allowed "
                           "(build_files_max of image_builder)",
                           (unsigned long long)usage.entries, (long long)config->build_files_max);
    }
    return 0;
}

static void make_group(struct confined *c)
{
    const struct builder_config *config = c->build->ib->config;
    const struct trk_cgroup_limits limits = {.memory_bytes = config->build_memory_max_bytes,
                                             .cpu_milli = config->build_cpu_max_milli,
                                             .pids = config->build_pids_max};
    struct trk_err err = {0};
    char id[TRK_UUID_SIZE];
    trk_uuid4(id);
    (void)snprintf(c->group, sizeof(c->group), "build-%s", id);
    if (trk_cgroups_make(&here.cgroups, c->group, &limits, c->cgroup_files, &err) < 0) {
        trk_log_warn("limits of a build are not enforced", "error", err.text, NULL);
    }
}

/* Whatever the end was: nothing of the build runs on. */
static void end_group(const struct confined *c)
{
    for (int i = 0; i < 100 && trk_cgroups_kill(&here.cgroups, c->group) > 0; i++) {
        (void)usleep(10000);
    }
    trk_cgroups_remove(&here.cgroups, c->group);
}

/* ---- the way out ---- */

static int open_proxy(struct confined *c, struct trk_err *err)
{
    static const char *const https[] = {"PIP_PROXY", "https_proxy", "HTTPS_PROXY", NULL};
    static const char *const http[] = {"PIP_PROXY", "http_proxy", "HTTP_PROXY", NULL};
    static const char *const none[] = {"no_proxy", "NO_PROXY", NULL};
    struct proxy_options options = {.http_proxy = build_first_setting(http),
                                    .https_proxy = build_first_setting(https),
                                    .no_proxy = build_first_setting(none),
                                    .on_trouble = build_on_trouble,
                                    .ctx = c->build};
    if (c->command->rules == NULL || !build_has_proxy(c->build->ib->config)) {
        return 0;
    }
    options.rules = *c->command->rules;
    *c->command->rules = (struct network_rules){0};
    c->proxy_folder = trk_xasprintf("%s-proxy", c->build->workspace);
    options.folder = c->proxy_folder;
    if (mkdir(c->proxy_folder, 0700) < 0 && errno != EEXIST) {
        network_rules_fini(&options.rules);
        return trk_err_errno(err, errno, "making %s", c->proxy_folder);
    }
    return proxy_start(&options, &c->proxy, err);
}

static void close_proxy(struct confined *c)
{
    proxy_stop(c->proxy);
    if (c->proxy_folder != NULL) {
        (void)rmdir(c->proxy_folder);
        free(c->proxy_folder);
    }
}

/* ---- the command ---- */

static int run(struct confined *c, const struct trk_args *argv, int *ret_status,
               struct trk_err *err)
{
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    const struct trk_proc_fd fd = {c->userns, USERNS_FD};
    options.argv = (const char *const *)argv->items;
    options.env = (const char *const *)c->command->env->items;
    options.cwd = build_is_sandboxed(c->build->ib->config) ? "/" : c->command->cwd;
    options.fds = &fd;
    options.fd_count = c->userns >= 0 ? 1 : 0;
    options.cgroup_procs = c->cgroup_files[0] != NULL ? (const char *const *)c->cgroup_files : NULL;
    options.die_with_parent = true;
    options.on_tick = on_tick;
    options.tick_ctx = c;
    return trk_proc_run(&options, NULL, 0, c->command->timeout_s * 1000, NULL, build_on_output,
                        c->build, c->build->cancel, ret_status, err);
}

static int run_in_sandbox(struct confined *c, int *ret_status, struct trk_err *err)
{
    const struct builder_config *config = c->build->ib->config;
    TRK_ARGS_AUTO(argv);
    int rc = build_sandbox_check(config, err);
    if (rc == 0 && here.change_user) {
        rc = trk_userns_new(here.uid, here.gid, &c->userns, err);
    }
    for (const char *const *w = c->command->writable; rc == 0 && here.change_user && *w != NULL;
         w++) {
        rc = trk_tree_chown(*w, here.uid, here.gid, err);
    }
    rc = rc < 0 ? rc : open_proxy(c, err);
    if (rc < 0) {
        return rc;
    }
    begin(config, here.outer_proc, &argv);
    show_named_by_settings(&argv);
    if (c->proxy != NULL) {
        trk_autofree char *socket = trk_xasprintf("%s/proxy.sock", c->proxy_folder);
        trk_sandbox_show(&argv, socket, PROXY_SOCKET, false);
    }
    for (const char *const *w = c->command->writable; *w != NULL; w++) {
        trk_sandbox_show(&argv, *w, *w, true);
    }
    add_launcher(config, c->proxy != NULL ? PROXY_SOCKET : "-", c->command->cwd, &argv);
    trk_args_add_all(&argv, (const char *const *)c->command->argv->items);
    make_group(c);
    rc = run(c, &argv, ret_status, err);
    bool is_out_of_memory = rc == 0 && *ret_status != 0 &&
                            trk_cgroups_oom_kills(&here.cgroups, c->group) > 0;
    end_group(c);
    return !is_out_of_memory
               ? rc
               : trk_err_set(err, TRK_TOO_LARGE,
                             "the build ran out of memory: at most %s are allowed "
                             "(BUILD_MEMORY_MAX_BYTES of image_builder)",
                             trk_size_text((uint64_t)config->build_memory_max_bytes).text);
}

int build_run_confined(struct build *build, const struct confined_command *command, int *ret_status,
                       struct trk_err *err)
{
    struct confined confined = {.build = build, .command = command, .userns = -1};
    int rc = build_is_sandboxed(build->ib->config) ? run_in_sandbox(&confined, ret_status, err)
                                                   : run(&confined, command->argv, ret_status, err);
    close_proxy(&confined);
    if (confined.userns >= 0) {
        (void)close(confined.userns);
    }
    for (size_t i = 0; i < TRK_CGROUP_PATHS_MAX; i++) {
        free(confined.cgroup_files[i]);
    }
    if (command->rules != NULL) {
        network_rules_fini(command->rules);
    }
    return rc;
}
