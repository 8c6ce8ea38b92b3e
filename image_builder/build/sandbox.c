/* Commands that a build runs: with a fresh environment, and what runs a user's code (pip) in
 * bubblewrap where that works. */
#include <ftw.h>
#include <pthread.h>
#include <sodium.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image_builder/build/build.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/proc.h"
#include "libtrack/base/str.h"

#define BWRAP "/usr/bin/bwrap"

extern char **environ;

void build_list_add(struct build_list *list, const char *text)
{
    list->items = trk_xrealloc(list->items, (list->count + 2) * sizeof(*list->items));
    list->items[list->count++] = trk_xstrdup(text);
    list->items[list->count] = NULL;
}

void build_list_addf(struct build_list *list, const char *fmt, ...)
{
    struct trk_buf text;
    trk_buf_init(&text, 1 << 20);
    va_list args;
    va_start(args, fmt);
    (void)trk_buf_vaddf(&text, fmt, args);
    va_end(args);
    if (!text.failed) {
        build_list_add(list, text.data);
    }
    sodium_memzero(text.data, text.len);
    trk_buf_fini(&text);
}

void build_list_fini(struct build_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        sodium_memzero(list->items[i], strlen(list->items[i]));
        free(list->items[i]);
    }
    free(list->items);
    *list = (struct build_list){0};
}

void build_list_cleanup(struct build_list *list)
{
    build_list_fini(list);
}

static void add_all(struct build_list *argv, const char *const *items)
{
    for (; *items != NULL; items++) {
        build_list_add(argv, *items);
    }
}

/* What pip and compilers need of the machine. The service may be root, and then so is the user's
 * code, without capabilities but with root's files: no home folders, no sockets below /run, no
 * data below /var. */
static void add_system(struct build_list *argv)
{
    static const char *const dirs[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
    static const char *const always[] = {"--ro-bind", "/usr", "/usr", "--ro-bind",
                                         "/etc",      "/etc", NULL};
    add_all(argv, always);
    for (size_t i = 0; i < TRK_COUNT(dirs); i++) {
        char target[256];
        ssize_t n = readlink(dirs[i], target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = '\0';
        const char *const link[] = {"--symlink", target, dirs[i], NULL};
        const char *const bind[] = {"--ro-bind-try", dirs[i], dirs[i], NULL};
        add_all(argv, n > 0 ? link : bind);
    }
}

/* Covers what only root may read: password hashes, private keys. */
static __thread struct build_list *covers;

static int cover(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)ftw;
    if (type == FTW_D && (st->st_mode & S_IXOTH) == 0) {
        const char *const empty[] = {"--tmpfs", path, NULL};
        add_all(covers, empty);
        return FTW_SKIP_SUBTREE;
    }
    if (type == FTW_F && (st->st_mode & S_IROTH) == 0) {
        const char *const nothing[] = {"--ro-bind", "/dev/null", path, NULL};
        add_all(covers, nothing);
    }
    return FTW_CONTINUE;
}

static void add_covers(struct build_list *argv)
{
    if (geteuid() == 0) {
        covers = argv;
        (void)nftw("/etc", cover, 16, FTW_PHYS | FTW_ACTIONRETVAL);
        covers = NULL;
    }
}

/* Files and folders that the service's own pip settings name (PIP_FIND_LINKS, SSL_CERT_FILE, …). */
static void add_named_by_settings(struct build_list *argv)
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
            const char *const bind[] = {"--ro-bind-try", path, path, NULL};
            if (path[0] == '/' && path[1] != '\0') {
                add_all(argv, bind);
            }
            value += len;
        }
    }
}

/* Where /etc/resolv.conf leads (systemd-resolved, resolvconf, WSL): without it no name is found. */
static void add_resolver(struct build_list *argv)
{
    trk_autofree char *path = realpath("/etc/resolv.conf", NULL);
    const char *const bind[] = {"--ro-bind-try", path, path, NULL};
    if (path != NULL && !trk_str_has_prefix(path, "/etc/")) {
        add_all(argv, bind);
    }
}

static void add_confinement(struct build_list *argv)
{
    static const char *const confinement[] = {"--dev",         "/dev",
                                              "--proc",        "/proc",
                                              "--tmpfs",       "/tmp",
                                              "--unshare-pid", "--unshare-ipc",
                                              "--unshare-uts", "--die-with-parent",
                                              "--new-session", "--cap-drop",
                                              "ALL",           NULL};
    build_list_add(argv, BWRAP);
    add_system(argv);
    add_all(argv, confinement);
    add_resolver(argv);
    add_covers(argv);
    add_named_by_settings(argv);
}

static bool sandbox_works;

/* Whether bubblewrap works depends on the kernel and on the container around: tried once. */
static void probe_sandbox(void)
{
    BUILD_LIST_AUTO(argv);
    add_confinement(&argv);
    build_list_add(&argv, "/bin/true");
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    options.argv = (const char *const *)argv.items;
    struct trk_buf output;
    trk_buf_init(&output, 4096);
    struct trk_err err = {0};
    int status = -1;
    int rc = trk_proc_run(&options, NULL, 0, 5000, &output, NULL, NULL, NULL, &status, &err);
    sandbox_works = rc == 0 && status == 0;
    if (!sandbox_works) {
        trk_log_warn("bubblewrap does not work here: requirements are installed without it",
                     "reason", rc < 0 ? err.text : output.data, NULL);
    }
    trk_buf_fini(&output);
}

int build_sandbox_prefix(const struct builder_config *config, const char *const *writable,
                         struct build_list *argv, struct trk_err *err)
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
    add_confinement(argv);
    build_list_add(argv, "--tmpfs");
    build_list_add(argv, config->state_dir);
    for (; *writable != NULL; writable++) {
        build_list_add(argv, "--bind");
        build_list_add(argv, *writable);
        build_list_add(argv, *writable);
    }
    build_list_add(argv, "--");
    return 0;
}

static void on_output(void *ctx, const char *bytes, size_t len)
{
    struct build *build = ctx;
    build_log_add(build->log, bytes, len);
}

int build_run_command(struct build *build, const struct build_list *argv,
                      const struct build_list *env, const char *cwd, int64_t timeout_s,
                      struct trk_buf *output, int *ret_status, struct trk_err *err)
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
