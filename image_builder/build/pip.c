/* pip in the sandbox: its environment and settings, what it may reach, and what its failures mean.
 */
#include <dirent.h>
#include <fcntl.h>
#include <strings.h>
#include <sys/stat.h>

#include "image_builder/build/network.h"
#include "image_builder/build/sandbox.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/base/tree.h"

extern char **environ;

/* ---- environment ---- */

static bool is_env_name(const char *name)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
    return name[0] != '\0' && strspn(name, allowed) == strlen(name) &&
           strchr("0123456789", name[0]) == NULL;
}

/* Proxies are ours to name where the sandbox's only way out is one. */
static bool is_proxy_setting(const char *name)
{
    static const char *const names[] = {"http_proxy", "https_proxy", "all_proxy", "no_proxy",
                                        "pip_proxy"};
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        if (strncasecmp(name, names[i], strlen(names[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* What would act on the programs around pip, outside the sandbox, or move what we place. */
static bool is_reserved(const char *name)
{
    static const char *const names[] = {"PATH",          "HOME",       "TMPDIR",
                                        "PIP_CACHE_DIR", "GCONV_PATH", "GLIBC_TUNABLES"};
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return trk_str_has_prefix(name, "LD_") || trk_str_has_prefix(name, "MALLOC_");
}

bool build_is_passed_on(const char *setting)
{
    static const char *const prefixes[] = {
        "PIP_",         "http_proxy=", "https_proxy=",   "no_proxy=",     "HTTP_PROXY=",
        "HTTPS_PROXY=", "NO_PROXY=",   "SSL_CERT_FILE=", "SSL_CERT_DIR=", "REQUESTS_CA_BUNDLE="};
    for (size_t i = 0; i < TRK_COUNT(prefixes); i++) {
        if (trk_str_has_prefix(setting, prefixes[i])) {
            return true;
        }
    }
    return false;
}

static void add_variables(const json_t *object, struct trk_args *env)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        if (json_is_string(value) && is_env_name(key) && !is_reserved(key)) {
            trk_args_addf(env, "%s=%s", key, json_string_value(value));
        }
    }
}

/* The settings that decide what pip does: the service's, then the job's. */
void build_pip_settings(const struct build *build, struct trk_args *env)
{
    for (char **e = environ; *e != NULL; e++) {
        if (build_is_passed_on(*e)) {
            trk_args_add(env, *e);
        }
    }
    add_variables(json_object_get(build->request.manifest, "build_env"), env);
    add_variables(build->request.secret_build_env, env);
}

static void make_env(const struct build *build, struct trk_args *env)
{
    static const char *const proxies[] = {"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"};
    trk_args_add(env, "PATH=/usr/local/bin:/usr/bin:/bin");
    trk_args_add(env, "LANG=C.UTF-8");
    trk_args_addf(env, "HOME=%s", build->workspace);
    trk_args_addf(env, "TMPDIR=%s/tmp", build->workspace);
    bool has_proxy = build_has_proxy(build->ib->config);
    TRK_ARGS_AUTO(settings);
    build_pip_settings(build, &settings);
    for (size_t i = 0; i < settings.count; i++) {
        if (!has_proxy || !is_proxy_setting(settings.items[i])) {
            trk_args_add(env, settings.items[i]);
        }
    }
    for (size_t i = 0; i < TRK_COUNT(proxies) && has_proxy; i++) {
        trk_args_addf(env, "%s=http://127.0.0.1:" BUILD_PROXY_PORT, proxies[i]);
    }
}

/* ---- pip ---- */

static void add_pip(const struct build *build, const char *target, const char *cache,
                    struct trk_args *argv)
{
    /* -I: the job's folder is the current one, and its modules (a random.py, a pip/) are neither
     * pip's nor part of the cache's key. */
    static const char *const options[] = {BUILD_PYTHON,
                                          "-I",
                                          "-m",
                                          "pip",
                                          "install",
                                          "--no-input",
                                          "--no-compile",
                                          "--no-color",
                                          "--disable-pip-version-check",
                                          "--progress-bar",
                                          "off",
                                          "--no-warn-script-location",
                                          "--root-user-action=ignore",
                                          "--upgrade"};
    for (size_t i = 0; i < TRK_COUNT(options); i++) {
        trk_args_add(argv, options[i]);
    }
    if (build->request.no_cache) {
        trk_args_add(argv, "--no-cache-dir");
    } else {
        trk_args_addf(argv, "--cache-dir=%s", cache);
    }
    trk_args_addf(argv, "--target=%s", target);
    trk_args_addf(argv, "--requirement=%s", build->python.requirements_path);
}

static const char index_advice[] =
    "the package index can not be reached: look at the first warning above, and at PIP_INDEX_URL "
    "or PIP_FIND_LINKS of image_builder";

/* The first that occurs in what pip printed is the cause: what cannot be reached comes before "no
 * matching distribution", which is only what follows from it. */
static const struct {
    const char *text, *advice;
} advices[] = {
    {"No module named pip", "pip is not installed on the build machine: apt-get install "
                            "python3-pip"},
    {"is refused: ", "builds may not reach that host: BUILD_NETWORK_HOSTS of image_builder can "
                     "allow it"},
    {"network: cannot be reached", index_advice},
    {"Failed to establish a new connection", index_advice},
    {"Temporary failure in name resolution", index_advice},
    {"Network is unreachable", index_advice},
    {"connection broken by", index_advice},
    {"Could not fetch URL", index_advice},
    {"SSLError", "the certificate of the package index is not trusted: PIP_CERT of image_builder "
                 "names a file of CAs"},
    {"Could not open requirements file", "a file that the requirements file refers to is missing"},
    {"Invalid requirement", "mend that line of the requirements file"},
    {"ResolutionImpossible", "loosen the versions that contradict each other"},
    {"error: subprocess-exited-with-error", "a package has no ready-made wheel and could not be "
                                            "built here: take a version that has one"},
    {"No matching distribution found", "check the name and the version in the requirements file; "
                                       "the job runs on the Python named here"},
    {"Could not find a version", "check the name and the version in the requirements file"},
};

static const char *find_advice(const struct build *build, const char *printed)
{
    for (size_t i = 0; i < TRK_COUNT(advices); i++) {
        if (strstr(printed, advices[i].text) != NULL) {
            /* pip without retries does not say that it reached nothing */
            bool may_be_unreached = advices[i].advice == index_advice ||
                                    strstr(advices[i].advice, "check the name") != NULL;
            bool is_cut_off = may_be_unreached &&
                              strcmp(build->ib->config->build_network, "none") == 0;
            return is_cut_off ? "builds have no network here (BUILD_NETWORK of image_builder is "
                                "none): PIP_FIND_LINKS can name a folder of wheels"
                              : advices[i].advice;
        }
    }
    return "the log's last lines say why";
}

static int pip_failed(struct build *build, int status, struct trk_err *err)
{
    char version[16] = "";
    struct trk_buf tail, step;
    (void)(build_python_version(version, NULL) == 0);
    trk_buf_init(&tail, 4096);
    trk_buf_init(&step, 64U << 10);
    build_log_tail(build->log, 12, 2500, &tail);
    build_log_tail(build->log, 500, 60000, &step);
    (void)trk_err_set(err, TRK_INVALID,
                      "installing the requirements of %s failed (pip's status %d, Python %s): %s. "
                      "The last lines:\n%s",
                      build->python.requirements_path, status, version,
                      find_advice(build, step.data), tail.data);
    trk_buf_fini(&step);
    trk_buf_fini(&tail);
    return TRK_INVALID;
}

/* The hosts that installing needs: the operator's indexes, and what the job itself names. */
static void add_rules(const struct build *build, const char *requirements,
                      struct network_rules *rules)
{
    static const char *const files[] = {"/etc/pip.conf", "/etc/xdg/pip/pip.conf"};
    const struct builder_config *config = build->ib->config;
    if (strcmp(config->build_network, "none") == 0) {
        return;
    }
    network_trust_default_index(rules);
    network_trust_hosts(rules, config->build_network_hosts);
    for (char **e = environ; *e != NULL; e++) {
        if (trk_str_has_prefix(*e, "PIP_") && !is_proxy_setting(*e)) {
            network_trust_urls(rules, *e);
        }
    }
    for (size_t i = 0; i < TRK_COUNT(files); i++) {
        trk_autofree char *text = NULL;
        if (trk_file_read(files[i], BUILD_REQUIREMENTS_MAX, &text, NULL, NULL) == 0) {
            network_trust_urls(rules, text);
        }
    }
    TRK_ARGS_AUTO(settings);
    add_variables(json_object_get(build->request.manifest, "build_env"), &settings);
    add_variables(build->request.secret_build_env, &settings);
    for (size_t i = 0; i < settings.count; i++) {
        network_name_urls(rules, settings.items[i]);
    }
    network_name_urls(rules, requirements);
    rules->any_public = strcmp(config->build_network, "public") == 0;
}

/* The cache must leave room for the build, whose limits count it. */
static int make_pip_cache(const struct build *build, const char *cache, struct trk_err *err)
{
    const struct builder_config *config = build->ib->config;
    struct trk_tree_usage usage = {0};
    struct trk_err ignored = {0};
    if (trk_path_exists(cache) && (trk_tree_measure(cache, &usage, &ignored) < 0 ||
                                   usage.bytes > (uint64_t)config->build_disk_max_bytes / 2 ||
                                   usage.entries > (uint64_t)config->build_files_max / 2)) {
        build_log_printf(build->log, "pip's cache is emptied: it had %s",
                         trk_size_text(usage.bytes).text);
        if (trk_rm_rf(cache, err) < 0) {
            return err->code;
        }
    }
    int rc = trk_mkdir_p(cache, 0700, err);
    (void)utimensat(AT_FDCWD, cache, NULL, 0); /* used now: see build_pip_cache_prune */
    return rc;
}

int build_pip_cache_prune(const char *folder, int64_t hours, struct trk_err *err)
{
    DIR *dir = hours > 0 ? opendir(folder) : NULL; /* not there before the first build */
    int rc = 0;
    for (struct dirent *e; rc == 0 && dir != NULL && (e = readdir(dir)) != NULL;) {
        struct stat st;
        if (e->d_name[0] != '.' && fstatat(dirfd(dir), e->d_name, &st, 0) == 0 &&
            st.st_mtime < trk_wall_s() - hours * 3600) {
            trk_autofree char *path = trk_xasprintf("%s/%s", folder, e->d_name);
            rc = trk_rm_rf(path, err);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return rc;
}

int build_run_pip(struct build *build, const char *requirements, const char *target,
                  const char *cache, struct trk_err *err)
{
    const char *const writable[] = {build->workspace, cache, NULL};
    trk_autofree char *tmp = trk_xasprintf("%s/tmp", build->workspace);
    TRK_ARGS_AUTO(argv);
    TRK_ARGS_AUTO(env);
    int rc = trk_mkdir_p(tmp, 0700, err);
    rc = rc < 0 ? rc : trk_mkdir_p(target, 0755, err);
    rc = rc < 0 ? rc : make_pip_cache(build, cache, err);
    if (rc < 0) {
        return rc;
    }
    struct network_rules rules = {0};
    add_rules(build, requirements, &rules);
    add_pip(build, target, cache, &argv);
    make_env(build, &env);
    const struct confined_command command = {.argv = &argv,
                                             .env = &env,
                                             .cwd = build->folder,
                                             .writable = writable,
                                             .rules = &rules,
                                             .timeout_s = build->ib->config->build_timeout_s};
    int status;
    rc = build_run_confined(build, &command, &status, err);
    if (rc == TRK_TIMEOUT) {
        return trk_err_set(err, TRK_TIMEOUT,
                           "installing the requirements took longer than %lld s: ask for less, or "
                           "raise BUILD_TIMEOUT_S of image_builder",
                           (long long)build->ib->config->build_timeout_s);
    }
    if (rc < 0) {
        return trk_err_wrap(err, "installing the requirements");
    }
    return status == 0 ? 0 : pip_failed(build, status, err);
}
