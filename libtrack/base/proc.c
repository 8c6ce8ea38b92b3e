#include "libtrack/base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"

/* What the child does before exec, so that a failure can be named. */
enum stage {
    STAGE_READY, /* all set up, waiting at the gate */
    STAGE_PID,   /* from a detached child: errnum is its pid */
    STAGE_SESSION,
    STAGE_CGROUP,
    STAGE_STDIO,
    STAGE_CWD,
    STAGE_LIMIT,
    STAGE_USER,
    STAGE_PARENT,
    STAGE_EXEC,
};
static const char *const stage_texts[] = {
    "",
    "",
    "making a session",
    "joining the control group",
    "setting up descriptors",
    "changing to the folder",
    "setting limits",
    "changing the user",
    "watching the parent",
    "executing",
};
struct child_report {
    int stage;
    int errnum;
};

/* What the child needs, made before fork: between fork and exec only async-signal-safe calls. */
struct plan {
    const struct trk_proc_options *options;
    char *path; /* resolved argv[0] */
    char *const *argv;
    char *const *env;
    pid_t parent;
    int status_fd;
    int null_fd;
};

void trk_proc_options_init(struct trk_proc_options *options)
{
    memset(options, 0, sizeof(*options));
    options->stdin_fd = -1;
    options->stdout_fd = -1;
    options->stderr_fd = -1;
    options->gate_fd = -1;
}

static int read_start_ticks(pid_t pid, uint64_t *ret_ticks, char *ret_state)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    trk_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    ssize_t n = read(fd, text, sizeof(text) - 1);
    if (n <= 0) {
        return -1;
    }
    text[n] = '\0';
    /* The name in parentheses may contain anything: count the fields after the last ')'. */
    char *p = strrchr(text, ')');
    if (p == NULL || p[1] != ' ') {
        return -1;
    }
    p += 2;
    *ret_state = *p;
    for (int field = 3; field < 22; field++) {
        p = strchr(p, ' ');
        if (p == NULL) {
            return -1;
        }
        p++;
    }
    *ret_ticks = strtoull(p, NULL, 10);
    return 0;
}

static int open_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0U);
}

/* -- the child's side -- */

static _Noreturn void child_fail(int status_fd, enum stage stage, int errnum)
{
    struct child_report report = {stage, errnum};
    ssize_t n = write(status_fd, &report, sizeof(report));
    (void)n;
    _exit(127);
}

static void child_close_from(int first)
{
    if (syscall(SYS_close_range, (unsigned)first, ~0U, 0U) == 0) {
        return;
    }
    struct rlimit limit;
    int end = 65536;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 65536) {
        end = (int)limit.rlim_cur;
    }
    for (int fd = first; fd < end; fd++) {
        (void)close(fd);
    }
}

/* Puts every descriptor in its place and really closes the rest (a child that waits at its gate
 * must not hold the write end of its own or another's gate). Sets *status_fd and *gate_fd to their
 * new numbers. */
static int child_descriptors(const struct plan *plan, int *status_fd, int *gate_fd)
{
    enum { MAPPED_MAX = 3 + 16 };
    const struct trk_proc_options *o = plan->options;
    int from[MAPPED_MAX], to[MAPPED_MAX], count = 0, top = 3;
    const int std[3] = {o->stdin_fd, o->stdout_fd, o->stderr_fd};
    for (int i = 0; i < 3; i++) {
        from[count] = std[i] >= 0 ? std[i] : plan->null_fd;
        to[count++] = i;
    }
    for (size_t i = 0; i < o->fd_count && count < MAPPED_MAX; i++) {
        from[count] = o->fds[i].from;
        to[count++] = o->fds[i].to;
        if (o->fds[i].to >= top) {
            top = o->fds[i].to + 1;
        }
    }
    /* First out of the way of every target number, then into place. */
    int base = top + 2;
    int status = fcntl(*status_fd, F_DUPFD_CLOEXEC, base);
    int gate = *gate_fd >= 0 ? fcntl(*gate_fd, F_DUPFD_CLOEXEC, base) : -1;
    if (status < 0 || (*gate_fd >= 0 && gate < 0)) {
        return -1;
    }
    for (int i = 0; i < count; i++) {
        from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, base);
        if (from[i] < 0) {
            return -1;
        }
    }
    for (int i = 0; i < count; i++) {
        if (dup2(from[i], to[i]) < 0) {
            return -1;
        }
    }
    if (dup3(status, top, O_CLOEXEC) < 0 || (gate >= 0 && dup3(gate, top + 1, O_CLOEXEC) < 0)) {
        return -1;
    }
    *status_fd = top;
    *gate_fd = gate >= 0 ? top + 1 : -1;
    for (int fd = 3; fd < top; fd++) {
        bool wanted = false;
        for (int i = 0; i < count; i++) {
            wanted = wanted || to[i] == fd;
        }
        if (!wanted) {
            (void)close(fd);
        }
    }
    child_close_from(gate >= 0 ? top + 2 : top + 1);
    return 0;
}

static int child_join_cgroups(const char *const *files)
{
    for (size_t i = 0; files != NULL && files[i] != NULL; i++) {
        int fd = open(files[i], O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) != 1) {
            return -1;
        }
        (void)close(fd);
    }
    return 0;
}

static void child_reset_signals(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;
    for (int sig = 1; sig < 65; sig++) {
        (void)sigaction(sig, &action, NULL);
    }
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child_wait_at_gate(int status_fd, int gate_fd)
{
    struct child_report ready = {STAGE_READY, 0};
    ssize_t n = write(status_fd, &ready, sizeof(ready));
    char byte;
    do {
        n = read(gate_fd, &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n != 1) {
        _exit(127); /* the parent died or changed its mind */
    }
}

/* A detached child: the middle process ends at once, so that init takes the child over. */
static void child_detach(int status_fd)
{
    pid_t pid = fork();
    if (pid < 0) {
        child_fail(status_fd, STAGE_SESSION, errno);
    }
    if (pid > 0) {
        _exit(0);
    }
    struct child_report report = {STAGE_PID, (int)getpid()};
    if (write(status_fd, &report, sizeof(report)) != (ssize_t)sizeof(report)) {
        _exit(127);
    }
}

static _Noreturn void child_main(const struct plan *plan)
{
    const struct trk_proc_options *o = plan->options;
    int status_fd = plan->status_fd, gate_fd = o->gate_fd;
    if (o->detach) {
        child_detach(status_fd);
    }
    if (o->new_session && setsid() < 0) {
        child_fail(status_fd, STAGE_SESSION, errno);
    }
    if (child_join_cgroups(o->cgroup_procs) < 0) {
        child_fail(status_fd, STAGE_CGROUP, errno);
    }
    if (child_descriptors(plan, &status_fd, &gate_fd) < 0) {
        child_fail(status_fd, STAGE_STDIO, errno);
    }
    if (o->cwd != NULL && chdir(o->cwd) < 0) {
        child_fail(status_fd, STAGE_CWD, errno);
    }
    if (o->memory_limit_bytes > 0) {
        struct rlimit limit = {(rlim_t)o->memory_limit_bytes, (rlim_t)o->memory_limit_bytes};
        if (setrlimit(RLIMIT_AS, &limit) < 0) {
            child_fail(status_fd, STAGE_LIMIT, errno);
        }
    }
    if (o->change_user && (setgroups(0, NULL) < 0 || setresgid(o->gid, o->gid, o->gid) < 0 ||
                           setresuid(o->uid, o->uid, o->uid) < 0)) {
        child_fail(status_fd, STAGE_USER, errno);
    }
    if (o->die_with_parent) { /* after the change of user, which would clear it */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
            child_fail(status_fd, STAGE_PARENT, errno);
        }
        if (getppid() != plan->parent) {
            _exit(127);
        }
    }
    child_reset_signals();
    if (gate_fd >= 0) {
        child_wait_at_gate(status_fd, gate_fd);
    }
    execve(plan->path, plan->argv, plan->env);
    child_fail(status_fd, STAGE_EXEC, errno);
}

/* -- the parent's side -- */

static bool is_executable_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* Owned path of argv[0], or NULL. */
static char *find_program(const char *name)
{
    if (strchr(name, '/') != NULL) {
        return trk_xstrdup(name);
    }
    const char *path = getenv("PATH");
    if (path == NULL || path[0] == '\0') {
        path = "/usr/local/bin:/usr/bin:/bin";
    }
    while (*path != '\0') {
        size_t len = strcspn(path, ":");
        char *candidate = trk_xasprintf("%.*s/%s", len > 0 ? (int)len : 1, len > 0 ? path : ".",
                                        name);
        if (is_executable_file(candidate)) {
            return candidate;
        }
        free(candidate);
        path += len + (path[len] == ':');
    }
    return NULL;
}

static const char *const default_names[] = {"PATH", "HOME", "LANG"};

/* An environment of PATH, HOME and LANG: owned strings in `out`, NULL-terminated. */
static void default_env(char *out[TRK_COUNT(default_names) + 1])
{
    size_t count = 0;
    for (size_t i = 0; i < TRK_COUNT(default_names); i++) {
        const char *value = getenv(default_names[i]);
        if (value != NULL) {
            out[count++] = trk_xasprintf("%s=%s", default_names[i], value);
        }
    }
    out[count] = NULL;
}

/* Waits for the child's report: nothing (exec happened), ready (at the gate), or a failure. A
 * detached child tells its pid first. */
static int await_child(int fd, const struct plan *plan, pid_t *pid, struct trk_err *err)
{
    struct child_report report = {0};
    ssize_t n;
    do {
        n = read(fd, &report, sizeof(report));
        if (n == (ssize_t)sizeof(report) && report.stage == STAGE_PID) {
            *pid = report.errnum;
        }
    } while ((n < 0 && errno == EINTR) ||
             (n == (ssize_t)sizeof(report) && report.stage == STAGE_PID));
    bool is_ready = n == (ssize_t)sizeof(report) && report.stage == STAGE_READY;
    if ((n == 0 || is_ready) && *pid > 0) {
        return 0;
    }
    if (n != (ssize_t)sizeof(report)) {
        return trk_err_set(err, TRK_INTERNAL, "starting %s: no report from the child", plan->path);
    }
    const char *detail = report.stage == STAGE_CWD ? plan->options->cwd : plan->path;
    return trk_err_errno(err, report.errnum, "starting %s: %s %s", plan->path,
                         stage_texts[report.stage], detail);
}

static pid_t fork_child(const struct plan *plan)
{
    /* No handler of ours may run in the child: it would act on the parent's descriptors. */
    sigset_t all, old;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t pid = fork();
    if (pid == 0) {
        child_main(plan);
    }
    int errnum = errno;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = errnum;
    return pid;
}

static int spawn(const struct plan *plan, int status_read_fd, int status_write_fd,
                 struct trk_proc *ret, struct trk_err *err)
{
    pid_t pid = fork_child(plan);
    int errnum = errno;
    (void)close(status_write_fd);
    if (pid < 0) {
        return trk_err_errno(err, errnum, "starting %s: fork", plan->path);
    }
    bool is_detached = plan->options->detach;
    struct trk_proc proc = {.pid = is_detached ? 0 : pid, .pidfd = -1};
    char state;
    int rc = await_child(status_read_fd, plan, &proc.pid, err);
    if (proc.pid > 0) {
        proc.pidfd = open_pidfd(proc.pid);
    }
    if (is_detached) { /* reap the middle process: from here on the child is init's */
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    if (rc == 0 && read_start_ticks(proc.pid, &proc.start_ticks, &state) < 0) {
        rc = trk_err_set(err, TRK_INTERNAL, "starting %s: /proc/%d/stat cannot be read", plan->path,
                         (int)proc.pid);
    }
    if (rc < 0) {
        /* A child that reported a failure is about to exit by itself; ours is also reaped. */
        if (!is_detached) {
            (void)kill(pid, SIGKILL);
            while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
            }
        }
        trk_proc_fini(&proc);
        return rc;
    }
    *ret = proc;
    return 0;
}

int trk_proc_spawn(const struct trk_proc_options *options, struct trk_proc *ret,
                   struct trk_err *err)
{
    trk_assert(options->argv != NULL && options->argv[0] != NULL);
    trk_assert(options->fd_count <= 16);
    trk_autofree char *path = find_program(options->argv[0]);
    if (path == NULL) {
        return trk_err_set(err, TRK_NOT_FOUND, "%s: no such program in PATH", options->argv[0]);
    }
    if (!is_executable_file(path)) {
        return trk_err_set(err, TRK_NOT_FOUND, "%s: not there, or not an executable file", path);
    }
    char *fallback_env[TRK_COUNT(default_names) + 1] = {NULL};
    if (options->env == NULL) {
        default_env(fallback_env);
    }
    int status[2] = {-1, -1};
    int rc;
    trk_autoclose int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0 || pipe2(status, O_CLOEXEC) < 0) {
        rc = trk_err_errno(err, errno, "starting %s", path);
    } else {
        struct plan plan = {
            .options = options,
            .path = path,
            /* execve wants char *const *, and does not write. */
            .argv = (char *const *)(uintptr_t)options->argv,
            .env = options->env != NULL ? (char *const *)(uintptr_t)options->env : fallback_env,
            .parent = getpid(),
            .status_fd = status[1],
            .null_fd = null_fd,
        };
        rc = spawn(&plan, status[0], status[1], ret, err);
        (void)close(status[0]);
    }
    for (size_t i = 0; i < TRK_COUNT(fallback_env); i++) {
        free(fallback_env[i]);
    }
    return rc;
}

int trk_proc_adopt(pid_t pid, uint64_t start_ticks, struct trk_proc *ret, struct trk_err *err)
{
    /* The pidfd first: what the start time is compared with is then what the pidfd means. */
    struct trk_proc proc = {.pid = pid, .start_ticks = start_ticks, .pidfd = -1};
    uint64_t ticks = 0;
    char state = 'Z';
    if (pid > 0) {
        proc.pidfd = open_pidfd(pid);
    }
    if (pid <= 0 || read_start_ticks(pid, &ticks, &state) < 0 || ticks != start_ticks ||
        state == 'Z' || state == 'X') {
        trk_proc_fini(&proc);
        return trk_err_set(err, TRK_NOT_FOUND, "process %d is gone", (int)pid);
    }
    *ret = proc;
    return 0;
}

void trk_proc_fini(struct trk_proc *proc)
{
    if (proc->pidfd >= 0) {
        (void)close(proc->pidfd);
    }
    proc->pidfd = -1;
}

bool trk_proc_is_alive(const struct trk_proc *proc)
{
    if (proc->pidfd >= 0) {
        struct pollfd poll_fd = {.fd = proc->pidfd, .events = POLLIN};
        return poll(&poll_fd, 1, 0) == 0;
    }
    uint64_t ticks;
    char state;
    return read_start_ticks(proc->pid, &ticks, &state) == 0 && ticks == proc->start_ticks &&
           state != 'Z' && state != 'X';
}

int trk_proc_signal(const struct trk_proc *proc, int sig, struct trk_err *err)
{
    int rc;
    if (proc->pidfd >= 0) {
        rc = (int)syscall(SYS_pidfd_send_signal, proc->pidfd, sig, NULL, 0U);
    } else if (!trk_proc_is_alive(proc)) {
        rc = -1;
        errno = ESRCH;
    } else {
        rc = kill(proc->pid, sig);
    }
    if (rc == 0) {
        return 0;
    }
    if (errno == ESRCH) {
        return trk_err_set(err, TRK_NOT_FOUND, "process %d is gone", (int)proc->pid);
    }
    return trk_err_errno(err, errno, "sending signal %d to process %d", sig, (int)proc->pid);
}

/* Has it ended? Reaps it when it is our child; *ret_status is -1 when it is not. */
static bool has_ended(const struct trk_proc *proc, int *ret_status)
{
    int status = 0;
    pid_t pid;
    do {
        pid = waitpid(proc->pid, &status, WNOHANG);
    } while (pid < 0 && errno == EINTR);
    if (pid == proc->pid) {
        *ret_status = status;
        return true;
    }
    if (pid < 0 && !trk_proc_is_alive(proc)) {
        *ret_status = -1;
        return true;
    }
    return false;
}

int trk_proc_wait(struct trk_proc *proc, int64_t timeout_ms, int *ret_status, struct trk_err *err)
{
    int64_t deadline = trk_now_ns() + timeout_ms * TRK_NS_PER_MS;
    for (;;) {
        int status;
        if (has_ended(proc, &status)) {
            if (ret_status != NULL) {
                *ret_status = status;
            }
            return 0;
        }
        int64_t left_ms = (deadline - trk_now_ns() + TRK_NS_PER_MS - 1) / TRK_NS_PER_MS;
        if (left_ms <= 0) {
            return trk_err_set(err, TRK_TIMEOUT, "process %d has not ended within %lld ms",
                               (int)proc->pid, (long long)timeout_ms);
        }
        struct pollfd poll_fd = {.fd = proc->pidfd, .events = POLLIN};
        int wait_ms = left_ms > 1000 ? 1000 : (int)left_ms;
        if (proc->pidfd < 0 && wait_ms > 5) {
            wait_ms = 5;
        }
        (void)poll(&poll_fd, proc->pidfd >= 0 ? 1 : 0, wait_ms);
    }
}

/* -- a command run to its end -- */

struct run {
    struct trk_proc proc;
    int output_fd;
    struct trk_buf *output;
    void (*on_output)(void *ctx, const char *bytes, size_t len);
    void *ctx;
    int (*on_tick)(void *ctx, struct trk_err *err);
    void *tick_ctx;
};

/* Takes what has come; false at the end of the output. */
static bool run_read(struct run *run)
{
    char bytes[16384];
    for (;;) {
        ssize_t n = read(run->output_fd, bytes, sizeof(bytes));
        if (n > 0) {
            if (run->output != NULL) {
                size_t room = run->output->cap_bytes - run->output->len;
                (void)trk_buf_add(run->output, bytes, (size_t)n < room ? (size_t)n : room);
            }
            if (run->on_output != NULL) {
                run->on_output(run->ctx, bytes, (size_t)n);
            }
        } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
            return n != 0;
        } else if (errno == EAGAIN) {
            return true;
        }
    }
}

/* Until the command itself has ended (left zombie, so that its group stays ours to kill). */
static int run_loop(struct run *run, int64_t timeout_ms, const atomic_bool *cancel,
                    const char *name, struct trk_err *err)
{
    int64_t deadline = trk_now_ns() + timeout_ms * TRK_NS_PER_MS;
    bool is_open = true;
    while (trk_proc_is_alive(&run->proc)) {
        int64_t left_ms = (deadline - trk_now_ns() + TRK_NS_PER_MS - 1) / TRK_NS_PER_MS;
        if (left_ms <= 0) {
            return trk_err_set(err, TRK_TIMEOUT, "%s did not end within %lld ms", name,
                               (long long)timeout_ms);
        }
        if (cancel != NULL && *cancel) {
            return trk_err_set(err, TRK_CANCELLED, "%s was cancelled", name);
        }
        int rc = run->on_tick != NULL ? run->on_tick(run->tick_ctx, err) : 0;
        if (rc < 0) {
            return rc;
        }
        struct pollfd fds[2] = {{.fd = run->proc.pidfd, .events = POLLIN},
                                {.fd = is_open ? run->output_fd : -1, .events = POLLIN}};
        int wait_ms = left_ms > 100 ? 100 : (int)left_ms;
        if (run->proc.pidfd < 0 && wait_ms > 5) {
            wait_ms = 5;
        }
        (void)poll(fds, 2, wait_ms);
        if (is_open && fds[1].revents != 0) {
            is_open = run_read(run);
        }
    }
    return 0;
}

static int run_finish(struct run *run, int rc, int *ret_exit_code)
{
    /* The leader is unreaped, so the group's number is still ours. What it left running goes too.
     */
    (void)kill(-run->proc.pid, SIGKILL);
    int status = 0;
    while (waitpid(run->proc.pid, &status, 0) < 0 && errno == EINTR) {
    }
    (void)run_read(run);
    trk_proc_fini(&run->proc);
    if (rc == 0) {
        *ret_exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    return rc;
}

/* The input as a file in memory: nobody has to feed a pipe. Position 0. */
static int input_file(const void *input, size_t len, int *ret_fd, struct trk_err *err)
{
    trk_autoclose int fd = memfd_create("stdin", MFD_CLOEXEC);
    if (fd < 0) {
        return trk_err_errno(err, errno, "making the input");
    }
    const char *bytes = input;
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(fd, bytes + done, len - done, (off_t)done);
        if (n < 0 && errno != EINTR) {
            return trk_err_errno(err, errno, "making the input");
        }
        done += n > 0 ? (size_t)n : 0;
    }
    *ret_fd = TRK_STEAL_FD(fd);
    return 0;
}

int trk_proc_run(const struct trk_proc_options *options, const void *input, size_t input_len,
                 int64_t timeout_ms, struct trk_buf *output,
                 void (*on_output)(void *ctx, const char *bytes, size_t len), void *ctx,
                 const atomic_bool *cancel, int *ret_exit_code, struct trk_err *err)
{
    struct trk_proc_options own = *options;
    own.new_session = true; /* its own group, to be killed as one */
    trk_autoclose int input_fd = -1;
    if (input != NULL) {
        if (input_file(input, input_len, &input_fd, err) < 0) {
            return trk_err_wrap(err, "running %s", own.argv[0]);
        }
        own.stdin_fd = input_fd;
    }
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
        return trk_err_errno(err, errno, "running %s: pipe", own.argv[0]);
    }
    trk_autoclose int read_fd = pipe_fds[0];
    int flags = fcntl(read_fd, F_GETFL);
    (void)fcntl(read_fd, F_SETFL, flags | O_NONBLOCK);
    own.stdout_fd = pipe_fds[1];
    own.stderr_fd = pipe_fds[1];
    struct run run = {.output_fd = read_fd,
                      .output = output,
                      .on_output = on_output,
                      .ctx = ctx,
                      .on_tick = options->on_tick,
                      .tick_ctx = options->tick_ctx};
    int rc = trk_proc_spawn(&own, &run.proc, err);
    (void)close(pipe_fds[1]);
    if (rc < 0) {
        return rc;
    }
    rc = run_loop(&run, timeout_ms, cancel, own.argv[0], err);
    return run_finish(&run, rc, ret_exit_code);
}
