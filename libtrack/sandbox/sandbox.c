#include "libtrack/sandbox/sandbox.h"

#include <unistd.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

#define PROBE_MS 10000

void trk_sandbox_parents(struct trk_args *args, const char *path)
{
    for (const char *cut = strchr(path + 1, '/'); cut != NULL; cut = strchr(cut + 1, '/')) {
        TRK_ARGS_ADD(args, "--perms", "0755", "--dir");
        trk_args_addf(args, "%.*s", (int)(cut - path), path);
    }
}

void trk_sandbox_show(struct trk_args *args, const char *from, const char *to, bool is_writable)
{
    trk_sandbox_parents(args, to);
    TRK_ARGS_ADD(args, is_writable ? "--bind" : "--ro-bind", from, to);
}

void trk_sandbox_show_if_there(struct trk_args *args, const char *path)
{
    if (trk_path_exists(path)) {
        trk_sandbox_show(args, path, path, false);
    }
}

/* Where /etc/resolv.conf leads (systemd-resolved, resolvconf, WSL): without it no name is found. */
static void show_resolver(struct trk_args *args)
{
    trk_autofree char *path = realpath("/etc/resolv.conf", NULL);
    if (path != NULL && !trk_str_has_prefix(path, "/etc/")) {
        trk_sandbox_show_if_there(args, path);
    }
}

/* The system's programs and libraries, not its data. */
static void show_system(const struct trk_sandbox *sandbox, struct trk_args *args)
{
    static const char *const dirs[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
    TRK_ARGS_ADD(args, "--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc");
    for (size_t i = 0; i < TRK_COUNT(dirs); i++) {
        char target[256];
        ssize_t n = readlink(dirs[i], target, sizeof(target) - 1);
        if (n > 0) {
            target[n] = '\0';
            TRK_ARGS_ADD(args, "--symlink", target, dirs[i]);
        } else if (trk_path_exists(dirs[i])) {
            TRK_ARGS_ADD(args, "--ro-bind", dirs[i], dirs[i]);
        }
    }
    if (sandbox->with_opt) {
        TRK_ARGS_ADD(args, "--ro-bind-try", "/opt", "/opt");
    }
    if (sandbox->with_cpus) {
        trk_sandbox_show_if_there(args, "/sys/devices/system");
    }
    show_resolver(args);
}

static void make_tmpfs(const struct trk_sandbox *sandbox, const char *path, struct trk_args *args)
{
    TRK_ARGS_ADD(args, "--perms", "1777");
    if (sandbox->tmp_bytes_max > 0) {
        TRK_ARGS_ADD(args, "--size");
        trk_args_addf(args, "%llu", (unsigned long long)sandbox->tmp_bytes_max);
    }
    TRK_ARGS_ADD(args, "--tmpfs", path);
}

/* A checkout below /opt, say. */
static void hide(const struct trk_sandbox *sandbox, struct trk_args *args)
{
    static const char *const shown[] = {"/opt/", "/usr/", "/etc/"};
    trk_autofree char *path = sandbox->hidden != NULL ? realpath(sandbox->hidden, NULL) : NULL;
    for (size_t i = 0; path != NULL && i < TRK_COUNT(shown); i++) {
        bool is_shown = trk_str_has_prefix(path, shown[i]) && (i > 0 || sandbox->with_opt);
        if (is_shown) {
            TRK_ARGS_ADD(args, "--tmpfs", path);
        }
    }
}

static void unshare_namespaces(const struct trk_sandbox *sandbox, struct trk_args *args)
{
    TRK_ARGS_ADD(args, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent");
    if (sandbox->own_user) {
        TRK_ARGS_ADD(args, "--unshare-user");
    }
    if (sandbox->userns_fd > 0) {
        TRK_ARGS_ADD(args, "--userns");
        trk_args_addf(args, "%d", sandbox->userns_fd);
    }
    if (sandbox->no_network) {
        TRK_ARGS_ADD(args, "--unshare-net");
    }
}

void trk_sandbox_begin(const struct trk_sandbox *sandbox, struct trk_args *args)
{
    trk_args_add(args, "bwrap");
    unshare_namespaces(sandbox, args);
    if (sandbox->status_fd > 0) {
        TRK_ARGS_ADD(args, "--json-status-fd");
        trk_args_addf(args, "%d", sandbox->status_fd);
    }
    show_system(sandbox, args);
    TRK_ARGS_ADD(args, "--dev", "/dev");
    if (sandbox->outer_proc) {
        TRK_ARGS_ADD(args, "--ro-bind", "/proc", "/proc");
    } else {
        TRK_ARGS_ADD(args, "--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys");
    }
    make_tmpfs(sandbox, "/tmp", args);
    make_tmpfs(sandbox, "/dev/shm", args);
    hide(sandbox, args);
    TRK_ARGS_ADD(args, "--cap-drop", "ALL");
    if (sandbox->may_change_user) {
        TRK_ARGS_ADD(args, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID");
    }
    if (sandbox->may_make_network) {
        TRK_ARGS_ADD(args, "--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_NET_ADMIN", "--cap-add",
                     "CAP_SETPCAP", "--cap-add", "CAP_NET_BIND_SERVICE");
    }
}

/* ---- does it work here? ---- */

static const struct {
    const char *text, *advice;
} advices[] = {
    {"No permissions to create",
     "user namespaces are refused here: allow them (sysctl user.max_user_namespaces, "
     "kernel.unprivileged_userns_clone), in a container with --security-opt seccomp=unconfined"},
    {"Creating new namespace failed",
     "namespaces are refused here: allow user namespaces (sysctl user.max_user_namespaces), in a "
     "container with --security-opt seccomp=unconfined and an ordinary user"},
    {"setting up uid map", "user namespaces are of no use here (AppArmor, or a container without "
                           "the right to map users): run as an ordinary user"},
    {"mount proc", "a fresh /proc is refused in this container"},
};

static int probe_failed(int status, const char *output, struct trk_err *err)
{
    const char *advice = output[0] != '\0' ? "" : "the command is not executable in the sandbox";
    for (size_t i = 0; i < TRK_COUNT(advices); i++) {
        if (strstr(output, advices[i].text) != NULL) {
            advice = advices[i].advice;
            break;
        }
    }
    size_t len = strcspn(output, "\n");
    return trk_err_set(err, TRK_UNAVAILABLE, "bubblewrap ended with status %d: %.*s%s%s", status,
                       (int)(len < 300 ? len : 300), output,
                       output[0] != '\0' && advice[0] != '\0' ? "; " : "", advice);
}

int trk_sandbox_probe(const struct trk_proc_options *options, struct trk_err *err)
{
    struct trk_buf output;
    trk_buf_init(&output, 4096);
    int status = -1;
    int rc = trk_proc_run(options, NULL, 0, PROBE_MS, &output, NULL, NULL, NULL, &status, err);
    if (rc == TRK_NOT_FOUND) {
        rc = trk_err_set(err, TRK_UNAVAILABLE,
                         "bubblewrap is not installed (apt-get install bubblewrap)");
    } else if (rc == 0 && status != 0) {
        rc = probe_failed(status, output.len > 0 ? output.data : "", err);
    }
    trk_buf_fini(&output);
    return rc;
}
