/* Cloning with the git command line, which trusts neither the remote nor this machine's settings:
 * https only, no hooks, no prompts, no configuration but ours, no submodules, limits on time, on
 * what is fetched and on what is checked out. Credentials are read by git's askpass from files that
 * only this user can read and that are gone before the source is used; they are never in argv or in
 * a URL. */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>

#include "image_builder/build/build.h"
#include "image_builder/build/proxy.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"

#define ENTRIES_MAX 100000
#define LISTING_MAX (64U << 20)

/* Where from, without what belongs in the askpass. */
struct remote {
    char *url, *username, *password; /* owned; NULL when absent */
};

static void remote_cleanup(struct remote *remote)
{
    char *secrets[] = {remote->username, remote->password};
    for (size_t i = 0; i < TRK_COUNT(secrets); i++) {
        if (secrets[i] != NULL) {
            sodium_memzero(secrets[i], strlen(secrets[i]));
            free(secrets[i]);
        }
    }
    free(remote->url);
}

static int check_text(const char *what, const char *text, struct trk_err *err)
{
    bool is_bad = text[0] == '\0' || text[0] == '-' || strlen(text) > 2000;
    for (const char *p = text; *p != '\0'; p++) {
        is_bad = is_bad || (unsigned char)*p <= ' ' || *p == 0x7f;
    }
    return is_bad ? trk_err_set(err, TRK_INVALID, "%s: '%.100s' is not valid", what, text) : 0;
}

/* https://user:password@host/… : what stands before the '@' goes to the askpass. */
static int read_remote(const struct build *build, struct remote *ret, struct trk_err *err)
{
    const char *url = trk_json_string_or(json_object_get(build->request.manifest, "git"), "remote",
                                         "");
    if (!trk_str_has_prefix(url, "https://")) {
        return trk_err_set(err, TRK_INVALID, "git.remote: must start with https://");
    }
    if (check_text("git.remote", url, err) < 0) {
        return TRK_INVALID;
    }
    const char *host = url + strlen("https://");
    size_t authority = strcspn(host, "/?#");
    const char *at = memrchr(host, '@', authority);
    if (at != NULL) {
        size_t user_len = strcspn(host, ":@");
        int rc = trk_url_decode(host, user_len, &ret->username, err);
        if (rc == 0 && host[user_len] == ':') {
            rc = trk_url_decode(host + user_len + 1, (size_t)(at - host) - user_len - 1,
                                &ret->password, err);
        }
        if (rc < 0) {
            return trk_err_wrap(err, "git.remote");
        }
        host = at + 1;
    }
    ret->url = trk_xasprintf("https://%s", host);
    if (build->request.git_username != NULL || build->request.git_password != NULL) {
        free(ret->username);
        free(ret->password);
        ret->username = trk_xstrdup(
            build->request.git_username != NULL ? build->request.git_username : "");
        ret->password = trk_xstrdup(
            build->request.git_password != NULL ? build->request.git_password : "");
    }
    return 0;
}

/* The askpass: git calls it with the question; the files lie beside it. */
static const char askpass_script[] = "#!/bin/sh\n"
                                     "case \"$1\" in\n"
                                     "Username*) file=username ;;\n"
                                     "*) file=password ;;\n"
                                     "esac\n"
                                     "exec cat -- \"${0%/*}/$file\"\n";

static int write_private(const char *folder, const char *name, const char *text, mode_t mode,
                         struct trk_err *err)
{
    trk_autofree char *path = trk_xasprintf("%s/%s", folder, name);
    trk_autoclose int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0) {
        return trk_err_errno(err, errno, "writing git's credentials");
    }
    return trk_write_all(fd, text, strlen(text), err);
}

static int make_askpass(const char *folder, const struct remote *remote, struct trk_err *err)
{
    if (mkdir(folder, 0700) < 0) {
        return trk_err_errno(err, errno, "making %s", folder);
    }
    int rc = write_private(folder, "askpass", askpass_script, 0700, err);
    if (rc == 0) {
        rc = write_private(folder, "username", remote->username != NULL ? remote->username : "",
                           0600, err);
    }
    if (rc == 0) {
        rc = write_private(folder, "password", remote->password != NULL ? remote->password : "",
                           0600, err);
    }
    return rc;
}

static const char *const https_proxies[] = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY",
                                            NULL};
static const char *const no_proxies[] = {"no_proxy", "NO_PROXY", NULL};

/* git goes through a proxy of ours that refuses this machine's own addresses and those of its link,
 * however a name, an answer of the DNS or a redirect leads there. NULL when they are allowed. */
static int open_way(struct build *build, struct proxy **ret, struct trk_args *env,
                    struct trk_err *err)
{
    char secret[33];
    const char *https = build_first_setting(https_proxies), *none = build_first_setting(no_proxies);
    if (build->ib->config->git_local_remotes) {
        trk_args_addf(env, "https_proxy=%s", https != NULL ? https : "");
        trk_args_addf(env, "no_proxy=%s", none != NULL ? none : "");
        return 0;
    }
    trk_random_hex(secret, sizeof(secret) / 2);
    struct proxy_options options = {.secret = secret,
                                    .rules = {.any_remote = true},
                                    .https_proxy = https,
                                    .no_proxy = none,
                                    .on_trouble = build_on_trouble,
                                    .ctx = build};
    int rc = proxy_start(&options, ret, err);
    if (rc == 0) {
        trk_args_addf(env, "https_proxy=http://build:%s@127.0.0.1:%u", secret, proxy_port(*ret));
    }
    return rc;
}

static void make_env(const char *private_folder, struct trk_args *env)
{
    static const char *const ca_files[] = {"GIT_SSL_CAINFO", NULL};
    trk_args_add(env, "PATH=/usr/local/bin:/usr/bin:/bin");
    trk_args_add(env, "LANG=C.UTF-8");
    trk_args_addf(env, "HOME=%s", private_folder);
    trk_args_addf(env, "GIT_ASKPASS=%s/askpass", private_folder);
    trk_args_add(env, "GIT_TERMINAL_PROMPT=0");
    trk_args_add(env, "GIT_CONFIG_NOSYSTEM=1");
    trk_args_add(env, "GIT_CONFIG_GLOBAL=/dev/null");
    trk_args_add(env, "GIT_ALLOW_PROTOCOL=https");
    trk_args_add(env, "GIT_LFS_SKIP_SMUDGE=1");
    if (build_first_setting(ca_files) != NULL) {
        trk_args_addf(env, "GIT_SSL_CAINFO=%s", build_first_setting(ca_files));
    }
}

static void add_git(const struct build *build, struct trk_args *argv)
{
    static const char *const settings[] = {
        "core.hooksPath=/dev/null",   "core.fsmonitor=false",
        "protocol.allow=never",       "protocol.https.allow=always",
        "credential.helper=",         "submodule.recurse=false",
        "fetch.fsckObjects=true",     "core.protectNTFS=true",
        "core.protectHFS=true",       "gc.auto=0",
        "http.lowSpeedLimit=1000",    "http.lowSpeedTime=30",
        "http.proxyAuthMethod=basic", "advice.detachedHead=false"};
    trk_args_add(argv, "prlimit"); /* one pack, one file: neither grows past the limit */
    trk_args_addf(argv, "--fsize=%lld", (long long)build->ib->config->source_max_bytes / 2 + 1);
    trk_args_add(argv, "--");
    trk_args_add(argv, "git");
    for (size_t i = 0; i < TRK_COUNT(settings); i++) {
        trk_args_add(argv, "-c");
        trk_args_add(argv, settings[i]);
    }
}

static int git_failed(struct build *build, const char *what, int status, struct trk_err *err)
{
    struct trk_buf tail;
    trk_buf_init(&tail, 2048);
    build_log_tail(build->log, 5, 1500, &tail);
    (void)trk_err_set(err, TRK_INVALID,
                      "%s failed (git's status %d): check git.remote, git.branch and the git "
                      "credentials (racetrack config credentials set). git said:\n%s",
                      what, status, tail.data);
    trk_buf_fini(&tail);
    return TRK_INVALID;
}

/* Runs git in the clone; what it prints goes to `output`, or to the log. */
static int git(struct build *build, const struct trk_args *env, const char *clone,
               const char *const *args, struct trk_buf *output, struct trk_err *err)
{
    TRK_ARGS_AUTO(argv);
    add_git(build, &argv);
    for (size_t i = 0; args[i] != NULL; i++) {
        trk_args_add(&argv, args[i]);
    }
    int status;
    int rc = build_run_command(build, &argv, env, clone, build->ib->config->git_timeout_s, output,
                               &status, err);
    if (rc < 0) {
        return trk_err_wrap(err, "git %s", args[0]);
    }
    if (status != 0) {
        if (output != NULL) {
            build_log_add(build->log, output->data, output->len);
        }
        return git_failed(build, args[0], status, err);
    }
    return 0;
}

/* Lines of ls-tree -l: "<mode> <type> <object> <size>\t<path>". Adds up before anything is written
 * to disk: a pack is easily made that unpacks to a thousand times its size. */
static int check_size(struct build *build, const char *listing, struct trk_err *err)
{
    int64_t total = 0, entries = 0;
    for (const char *line = listing; *line != '\0'; entries++) {
        const char *end = strchr(line, '\n');
        char mode[8], type[16], object[72];
        long long size = 0;
        (void)sscanf(line, "%7s %15s %71s %lld", mode, type, object, &size);
        if (size < 0 || __builtin_add_overflow(total, size, &total)) {
            total = INT64_MAX;
        }
        if (total > build->ib->config->source_max_bytes || entries > ENTRIES_MAX) {
            return trk_err_set(err, TRK_TOO_LARGE,
                               "the repository has more than %d files or %lld bytes", ENTRIES_MAX,
                               (long long)build->ib->config->source_max_bytes);
        }
        line = end == NULL ? line + strlen(line) : end + 1;
    }
    return 0;
}

static int clone_and_check_out(struct build *build, const struct trk_args *env,
                               const struct remote *remote, const char *into, struct trk_err *err)
{
    const char *branch = trk_json_string_or(json_object_get(build->request.manifest, "git"),
                                            "branch", "");
    trk_autofree char *branch_arg = trk_xasprintf("--branch=%s", branch);
    if (branch[0] != '\0' && check_text("git.branch", branch, err) < 0) {
        return TRK_INVALID;
    }
    const char *args[12] = {"clone",     "--depth=1",   "--single-branch", "--no-checkout",
                            "--no-tags", "--template=", "--quiet"};
    size_t n = 7;
    if (branch[0] != '\0') {
        args[n++] = branch_arg;
    }
    args[n++] = "--";
    args[n++] = remote->url;
    args[n++] = into;
    int rc = git(build, env, NULL, args, NULL, err);
    if (rc < 0) {
        return rc;
    }
    static const char *const list[] = {"ls-tree", "-r", "-l", "HEAD", NULL};
    static const char *const check_out[] = {"checkout", "--quiet", "--force", "HEAD", NULL};
    static const char *const describe[] = {"describe", "--long",   "--tags",
                                           "--dirty",  "--always", NULL};
    struct trk_buf output;
    trk_buf_init(&output, LISTING_MAX);
    rc = git(build, env, into, list, &output, err);
    if (rc == 0 && output.len + 65536 > output.cap_bytes) {
        rc = trk_err_set(err, TRK_TOO_LARGE, "the repository has too many files");
    }
    if (rc == 0) {
        rc = check_size(build, output.data, err);
    }
    if (rc == 0) {
        rc = git(build, env, into, check_out, NULL, err);
    }
    trk_buf_reset(&output);
    if (rc == 0) {
        rc = git(build, env, into, describe, &output, err);
    }
    if (rc == 0) {
        (void)snprintf(build->version, sizeof(build->version), "%.*s",
                       (int)strcspn(output.data, "\r\n"), output.data);
    }
    trk_buf_fini(&output);
    return rc;
}

int build_git_clone(struct build *build, const char *into, struct trk_err *err)
{
    __attribute__((cleanup(remote_cleanup))) struct remote remote = {0};
    TRK_ARGS_AUTO(env);
    struct proxy *proxy = NULL;
    int rc = read_remote(build, &remote, err);
    if (rc < 0) {
        return rc;
    }
    build_secrets_add(&build->secrets, remote.password);
    if (remote.password == NULL) { /* tokens are often given as the user name */
        build_secrets_add(&build->secrets, remote.username);
    }
    build_log_printf(build->log, "Cloning %s", remote.url);
    build_log_begin_step(build->log);
    trk_autofree char *private_folder = trk_xasprintf("%s/private", build->workspace);
    trk_autofree char *dot_git = trk_xasprintf("%s/.git", into);
    rc = make_askpass(private_folder, &remote, err);
    if (rc == 0) {
        make_env(private_folder, &env);
        rc = open_way(build, &proxy, &env, err);
    }
    if (rc == 0) {
        rc = clone_and_check_out(build, &env, &remote, into, err);
    }
    proxy_stop(proxy);
    struct trk_err ignored;
    int removed = trk_rm_rf(private_folder, rc < 0 ? &ignored : err);
    if (rc == 0) {
        rc = removed;
    }
    if (rc == 0) {
        rc = trk_rm_rf(dot_git, err);
    }
    if (rc == 0) {
        build_log_printf(build->log, "Source: %s", build->version);
    }
    return rc;
}
