#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/crypto.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/sandbox/sandbox.h"
#include "lifecycle/infra/process/internal.h"

/* Listens on 127.0.0.1, on the former port when it is free, so that a restart keeps the address. */
static int listen_socket(int64_t wanted_port, int64_t *ret_port, struct trk_err *err)
{
    trk_autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return trk_err_errno(err, errno, "making the job's socket");
    }
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)wanted_port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int rc = bind(fd, (struct sockaddr *)&addr, sizeof(addr));
    if (rc < 0 && wanted_port != 0) {
        addr.sin_port = 0;
        rc = bind(fd, (struct sockaddr *)&addr, sizeof(addr));
    }
    socklen_t len = sizeof(addr);
    if (rc < 0 || listen(fd, 1024) < 0 || getsockname(fd, (struct sockaddr *)&addr, &len) < 0) {
        return trk_err_errno(err, errno, "listening on 127.0.0.1");
    }
    *ret_port = ntohs(addr.sin_port);
    int ret = fd;
    fd = -1;
    return ret;
}

/* The wrapper with the image's entrypoint arguments. */
static void wrapper_args(const struct process_target *p, const json_t *doc, const char *packages,
                         struct trk_args *args)
{
    trk_args_add(args, p->wrapper);
    size_t i;
    json_t *arg;
    json_array_foreach (json_object_get(doc, "argv"), i, arg) {
        trk_args_add(args, json_string_value(arg));
    }
    TRK_ARGS_ADD(args, "--listen-fd", "3");
    if (packages != NULL) {
        TRK_ARGS_ADD(args, "--packages", packages);
    }
}

int process_memory_file(const char *name, const void *bytes, size_t len, struct trk_err *err)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0) {
        return trk_err_errno(err, errno, "making a memory file");
    }
    if (trk_write_all(fd, bytes, len, err) < 0 || lseek(fd, 0, SEEK_SET) < 0) {
        (void)close(fd);
        return trk_err_wrap(err, "making a memory file");
    }
    return fd;
}

/* Everything the child gets, made before it is started. */
struct start {
    struct trk_args args;
    struct trk_buf env_bytes;
    const char **env; /* pointers into env_bytes, or the sandbox's own short one */
    char *code_dir, *mark;
    char *cgroup_files[TRK_CGROUP_PATHS_MAX];
    struct confinement confinement;
    int listen_fd, env_fd, log_fd, status_fd, resolver_fd;
    int gate[2];
    int64_t port;
};

static void start_fini(struct start *s)
{
    trk_args_fini(&s->args);
    trk_buf_fini(&s->env_bytes);
    free(s->env);
    free(s->code_dir);
    free(s->mark);
    for (size_t i = 0; i < TRK_CGROUP_PATHS_MAX; i++) {
        free(s->cgroup_files[i]);
    }
    const int fds[] = {s->listen_fd,   s->env_fd,  s->log_fd,  s->status_fd,
                       s->resolver_fd, s->gate[0], s->gate[1], s->confinement.userns_fd};
    for (size_t i = 0; i < TRK_COUNT(fds); i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
}

static int open_files(struct process_target *p, const char *id, struct start *s,
                      struct trk_err *err)
{
    trk_autofree char *log = workload_path(p, id, "output.log");
    trk_autofree char *status = workload_path(p, id, "status.json");
    s->log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (s->log_fd < 0) {
        return trk_err_errno(err, errno, "opening %s", log);
    }
    s->status_fd = open(status, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (s->status_fd < 0) {
        return trk_err_errno(err, errno, "opening %s", status);
    }
    if (pipe2(s->gate, O_CLOEXEC) < 0) {
        return trk_err_errno(err, errno, "making a pipe");
    }
    return 0;
}

static int make_sandboxed(struct process_target *p, const char *id, const json_t *doc,
                          const char *packages, struct start *s, struct trk_err *err)
{
    static const char resolver[] = "nameserver 10.0.2.3\n"; /* slirp4netns's own */
    confine_begin(p, &s->confinement, &s->args);
    TRK_ARGS_ADD(&s->args, "--bind", s->code_dir, JOB_CODE_DIR, "--chdir", JOB_CODE_DIR);
    if (packages[0] != '\0') {
        TRK_ARGS_ADD(&s->args, "--ro-bind", packages, JOB_PACKAGES_DIR);
    }
    confine_launcher(p, &s->confinement, &s->args);
    wrapper_args(p, doc, packages[0] != '\0' ? JOB_PACKAGES_DIR : NULL, &s->args);
    trk_args_add(&s->args, "--own-tmp");
    s->env_fd = process_memory_file("env", s->env_bytes.data, s->env_bytes.len, err);
    s->resolver_fd = process_memory_file("resolver", resolver, strlen(resolver), err);
    if (s->env_fd < 0 || s->resolver_fd < 0) {
        return err->code;
    }
    s->mark = trk_xasprintf("%s=%s", JOB_MARK, id);
    s->env = trk_xcalloc(3, sizeof(s->env[0]));
    s->env[0] = s->mark;
    s->env[1] = "PATH=/usr/local/bin:/usr/bin:/bin";
    return 0;
}

static void make_plain(struct process_target *p, const json_t *doc, const char *packages,
                       struct start *s)
{
    wrapper_args(p, doc, packages[0] != '\0' ? packages : NULL, &s->args);
    size_t count = 0;
    for (size_t at = 0; at < s->env_bytes.len; at += strlen(s->env_bytes.data + at) + 1) {
        count++;
    }
    s->env = trk_xcalloc(count + 1, sizeof(s->env[0]));
    count = 0;
    for (size_t at = 0; at < s->env_bytes.len; at += strlen(s->env_bytes.data + at) + 1) {
        s->env[count++] = s->env_bytes.data + at;
    }
}

static int start_make(struct process_target *p, const char *id, const json_t *doc, struct start *s,
                      struct trk_err *err)
{
    s->code_dir = workload_path(p, id, "src/job");
    const char *packages = workload_text(doc, "packages");
    s->listen_fd = listen_socket(workload_int(doc, "port"), &s->port, err);
    if (s->listen_fd < 0) {
        return s->listen_fd;
    }
    if (open_files(p, id, s, err) < 0 || confine_prepare(p, doc, &s->confinement, err) < 0 ||
        process_env_open(p, id, doc, p->is_sandboxed ? &s->confinement.gateway : NULL,
                         &s->env_bytes, err) < 0) {
        return err->code;
    }
    const struct trk_cgroup_limits limits = {.memory_bytes = workload_int(doc, "memory_max_bytes"),
                                             .cpu_milli = workload_int(doc, "cpu_max_milli"),
                                             .pids = p->limits.pids};
    if (trk_cgroups_make(&p->cgroups, id, &limits, s->cgroup_files, err) < 0) {
        trk_log_warn("limits of a job are not enforced", "generation", id, "error", err->text,
                     NULL);
    }
    if (p->is_sandboxed) {
        return make_sandboxed(p, id, doc, packages, s, err);
    }
    make_plain(p, doc, packages, s);
    return 0;
}

/* Starts the child at its gate, saves who it is, opens the gate: a lifecycle killed in between
 * leaves either nothing or a process that workload.json names. */
static int start_run(struct process_target *p, const char *id, json_t *doc, struct start *s,
                     struct trk_err *err)
{
    struct trk_proc_options o;
    trk_proc_options_init(&o);
    const struct trk_proc_fd fds[] = {{s->listen_fd, LISTEN_FD},
                                      {s->env_fd, ENV_FD},
                                      {s->status_fd, STATUS_FD},
                                      {s->resolver_fd, RESOLVER_FD},
                                      {s->confinement.userns_fd, USERNS_FD}};
    o.argv = (const char *const *)s->args.items;
    o.env = s->env;
    o.cwd = p->is_sandboxed ? "/" : s->code_dir;
    o.fds = fds;
    o.fd_count = !p->is_sandboxed ? 1 : TRK_COUNT(fds) - (s->confinement.userns_fd < 0);
    o.stdout_fd = s->log_fd;
    o.stderr_fd = s->log_fd;
    o.new_session = true;
    o.detach = p->is_sandboxed; /* bubblewrap's own parent-death signal must mean bubblewrap only */
    o.change_user = p->change_user && !p->is_sandboxed;
    o.uid = p->uid;
    o.gid = p->gid;
    o.cgroup_procs = s->cgroup_files[0] != NULL ? (const char *const *)s->cgroup_files : NULL;
    o.gate_fd = s->gate[0];
    struct trk_proc proc;
    if (trk_proc_spawn(&o, &proc, err) < 0) {
        return err->code;
    }
    char address[64];
    snprintf(address, sizeof(address), "127.0.0.1:%d", (int)s->port);
    workload_set_text(doc, "state", STATE_RUNNING);
    workload_set_text(doc, "boot_id", p->boot_id);
    workload_set_text(doc, "sandbox", p->is_sandboxed ? "bwrap" : "none");
    workload_set_text(doc, "address", address);
    workload_set_int(doc, "port", s->port);
    workload_set_int(doc, "pid", proc.pid);
    workload_set_int(doc, "start_ticks", (int64_t)proc.start_ticks);
    workload_set_int(doc, "started_ms", trk_wall_ms());
    workload_set_int(doc, "oom_kills", trk_cgroups_oom_kills(&p->cgroups, id));
    int rc = workload_save(p, id, doc, err);
    if (rc == 0 && write(s->gate[1], "x", 1) != 1) {
        rc = trk_err_errno(err, errno, "starting the job");
    }
    if (rc < 0) {
        may_fail(trk_proc_signal(&proc, SIGKILL, NULL));
        may_fail(trk_proc_wait(&proc, 1000, NULL, NULL));
    }
    trk_proc_fini(&proc);
    return rc;
}

int process_launch(struct process_target *p, const char *id, json_t *doc, struct trk_err *err)
{
    struct start start = {.listen_fd = -1,
                          .env_fd = -1,
                          .log_fd = -1,
                          .status_fd = -1,
                          .resolver_fd = -1,
                          .confinement.userns_fd = -1,
                          .gate = {-1, -1}};
    trk_buf_init(&start.env_bytes, 2 << 20);
    int rc = start_make(p, id, doc, &start, err);
    if (rc == 0) {
        rc = start_run(p, id, doc, &start, err);
    }
    start_fini(&start);
    return rc;
}
