/*
 * confine.c - what a job's sandbox is made of, and whether it works here.
 */
#include <errno.h>
#include <fcntl.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/sandbox/sandbox.h"
#include "libtrack/sandbox/userns.h"
#include "lifecycle/infra/process/internal.h"

#define LAUNCHER "/run/racetrack/job_launch"
#define SLIRP    "/usr/bin/slirp4netns"
#define TUN      "/dev/net/tun"

/* From the best one on; the first that works here is taken. */
static const struct form {
    bool has_userns; /* what is privileged in the sandbox is so in a user namespace only */
    bool outer_proc; /* in containers, which refuse a fresh /proc */
} forms[] = {{true, false}, {true, true}, {false, false}};

void confine_begin(const struct process_target *p, const struct confinement *c,
                   struct trk_args *args)
{
    const struct form *form = &forms[c->form];
    const struct trk_sandbox sandbox = {.hidden = p->state_dir,
                                        .with_opt = true,
                                        .with_cpus = true,
                                        .own_user = form->has_userns && !p->change_user,
                                        .userns_fd = c->userns_fd >= 0 ? USERNS_FD : 0,
                                        .outer_proc = form->outer_proc,
                                        .may_change_user = p->change_user,
                                        .may_make_network = true,
                                        .tmp_bytes_max = c->tmp_bytes,
                                        .status_fd = STATUS_FD};
    trk_sandbox_begin(&sandbox, args);
    if (!trk_str_has_prefix(p->wrapper_dir, "/usr/")) {
        trk_sandbox_show(args, p->wrapper_dir, p->wrapper_dir, false);
    }
    trk_sandbox_show(args, p->launcher, LAUNCHER, false);
    trk_sandbox_parents(args, JOB_CODE_DIR);
    if (c->is_outside) {
        trk_autofree char *resolver = realpath("/etc/resolv.conf", NULL);
        TRK_ARGS_ADD(args, "--dev-bind", TUN, TUN);
        if (resolver != NULL) {
            TRK_ARGS_ADD(args, "--perms", "0644", "--ro-bind-data");
            trk_args_addf(args, "%d", RESOLVER_FD);
            trk_args_add(args, resolver);
        }
    }
}

void confine_launcher(const struct process_target *p, const struct confinement *c,
                      struct trk_args *args)
{
    TRK_ARGS_ADD(args, "--", LAUNCHER);
    trk_args_addf(args, "env=%d", ENV_FD);
    if (p->change_user) {
        trk_args_addf(args, "uid=%ld", (long)p->uid);
        trk_args_addf(args, "gid=%ld", (long)p->gid);
    }
    trk_args_addf(args, "files=%lld", (long long)p->limits.files);
    trk_args_addf(args, "log_rate=%lld", (long long)p->limits.log_bytes_s);
    trk_args_addf(args, "network=%s", c->is_outside ? "outside" : "alone");
    if (c->gateway.address[0] != '\0') {
        trk_args_addf(args, "pub=%s", c->gateway.address);
        trk_args_addf(args, "pub_port=%d", c->gateway.port);
    }
    trk_args_add(args, "--");
}

/* ---- does it work here? ---- */

/* The namespace that root makes; an ordinary user's bubblewrap makes its own. */
static int open_userns(const struct process_target *p, struct confinement *c, struct trk_err *err)
{
    c->userns_fd = -1;
    return forms[c->form].has_userns && p->change_user
               ? trk_userns_new(p->uid, p->gid, &c->userns_fd, err)
               : 0;
}

/* The very sandbox of a job, with `test` in it. */
static int probe(const struct process_target *p, size_t form, struct trk_err *err)
{
    TRK_ARGS_AUTO(args);
    struct confinement c = {.form = form};
    trk_autoclose int env_fd = process_memory_file("env", "A=1", 4, err);
    trk_autoclose int status_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (env_fd < 0) {
        return env_fd;
    }
    if (access(p->launcher, X_OK) < 0) {
        return trk_err_errno(err, errno, "%s", p->launcher);
    }
    if (open_userns(p, &c, err) < 0) {
        return err->code;
    }
    trk_autoclose int userns_fd = c.userns_fd;
    confine_begin(p, &c, &args);
    confine_launcher(p, &c, &args);
    TRK_ARGS_ADD(&args, "/usr/bin/test", "-x", p->wrapper);
    struct trk_proc_options o;
    trk_proc_options_init(&o);
    const struct trk_proc_fd fds[] = {
        {env_fd, ENV_FD}, {status_fd, STATUS_FD}, {userns_fd, USERNS_FD}};
    o.argv = (const char *const *)args.items;
    o.fds = fds;
    o.fd_count = userns_fd >= 0 ? 3 : 2;
    o.cwd = "/";
    return trk_sandbox_probe(&o, err);
}

static int find_form(const struct process_target *p, size_t *ret, struct trk_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < TRK_COUNT(forms); i++) {
        struct trk_err why = {0};
        bool is_plain_user = geteuid() != 0 && !forms[i].has_userns; /* that is the first again */
        bool is_root_job = geteuid() == 0 && !p->change_user && forms[i].has_userns;
        if (is_plain_user || is_root_job) {
            continue;
        }
        rc = probe(p, i, &why);
        if (rc == 0) {
            *ret = i;
            return 0;
        }
        if (err->code == 0) { /* the first reason counts */
            (void)trk_err_set(err, why.code, "%s", why.text);
        }
    }
    return rc;
}

int process_check_sandbox(struct process_target *p, struct trk_err *err)
{
    int rc = 0;
    struct trk_err why = {0};
    pthread_mutex_lock(&p->mutex);
    if (p->is_sandboxed && !p->sandbox_works) {
        rc = find_form(p, &p->form, &why);
        p->sandbox_works = rc == 0;
    }
    pthread_mutex_unlock(&p->mutex);
    /* Not "unavailable": to try again is of no use until the operator has done something. */
    return rc < 0 ? trk_err_set(err, TRK_INVALID,
                                "jobs are refused, because their sandbox does not work here: %.*s. "
                                "(PROCESS_SANDBOX=off of lifecycle runs them without one.)",
                                2000, why.text)
                  : 0;
}

/* ---- one job ---- */

int confine_prepare(struct process_target *p, const json_t *doc, struct confinement *ret,
                    struct trk_err *err)
{
    if (!p->is_sandboxed) {
        return 0;
    }
    int rc = process_check_sandbox(p, err);
    if (rc < 0) {
        return rc;
    }
    int64_t memory = workload_int(doc, "memory_max_bytes"), tmp = p->limits.tmp_bytes;
    ret->form = p->form;
    ret->tmp_bytes = (uint64_t)(memory > 0 && memory / 2 < tmp ? memory / 2 : tmp);
    ret->is_outside = strcmp(workload_text(doc, "network"), "outside") == 0;
    if (ret->is_outside && (access(SLIRP, X_OK) < 0 || access(TUN, F_OK) < 0)) {
        return trk_err_set(err, TRK_INVALID,
                           "network: outside cannot be given: %s is missing on the host of the "
                           "jobs%s",
                           access(SLIRP, X_OK) < 0 ? SLIRP : TUN,
                           access(SLIRP, X_OK) < 0 ? " (apt-get install slirp4netns)" : "");
    }
    return open_userns(p, ret, err);
}
