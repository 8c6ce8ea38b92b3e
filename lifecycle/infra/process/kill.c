/*
 * kill.c - ends a job with everything it started. In order: the processes we track (bubblewrap and
 * the init of its PID namespace, whose death takes the namespace along), the control group, and at
 * last a look through /proc for the mark in the environment or the session, for hosts that have
 * neither.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "lifecycle/infra/process/internal.h"

enum { CHILDREN_MAX = 64, KILL_TIMEOUT_MS = 5000 };

static bool read_proc(pid_t pid, const char *file, char *out, size_t size, size_t *ret_len)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    trk_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    size_t len = 0;
    while (len < size - 1) {
        ssize_t n = read(fd, out + len, size - 1 - len);
        if (n <= 0) {
            break;
        }
        len += (size_t)n;
    }
    out[len] = '\0';
    *ret_len = len;
    return true;
}

/* Parent, session and state of a process; start ticks too, so that it can be adopted. */
struct stat_line {
    char state;
    pid_t parent, session;
    unsigned long long start_ticks;
};
static bool read_stat(pid_t pid, struct stat_line *ret)
{
    char text[1024];
    size_t len;
    if (!read_proc(pid, "stat", text, sizeof(text), &len)) {
        return false;
    }
    const char *p = strrchr(text, ')');
    int parent, group, session;
    if (p == NULL ||
        sscanf(p, ") %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &ret->state, &parent, &group, &session, &ret->start_ticks) != 5) {
        return false;
    }
    ret->parent = parent;
    ret->session = session;
    return true;
}

/* Calls fn for every process of the system. */
static void each_process(void (*fn)(void *ctx, pid_t pid, const struct stat_line *stat), void *ctx)
{
    DIR *dir = opendir("/proc");
    if (dir == NULL) {
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        struct stat_line stat;
        if (isdigit((unsigned char)entry->d_name[0]) && read_stat(atoi(entry->d_name), &stat)) {
            fn(ctx, atoi(entry->d_name), &stat);
        }
    }
    (void)closedir(dir);
}

struct children {
    pid_t parent;
    struct trk_proc list[CHILDREN_MAX];
    size_t count;
};
static void add_child(void *ctx, pid_t pid, const struct stat_line *stat)
{
    struct children *c = ctx;
    if (stat->parent == c->parent && c->count < CHILDREN_MAX &&
        trk_proc_adopt(pid, stat->start_ticks, &c->list[c->count], NULL) == 0) {
        c->count++;
    }
}

/* The children of a process, held by pidfd. From /proc/PID/task/PID/children, or by looking at all.
 */
static void find_children(pid_t parent, struct children *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->parent = parent;
    char name[64], text[4096];
    size_t len;
    snprintf(name, sizeof(name), "task/%d/children", (int)parent);
    if (!read_proc(parent, name, text, sizeof(text), &len)) {
        each_process(add_child, ret);
        return;
    }
    for (char *p = text; *p != '\0';) {
        char *end;
        long pid = strtol(p, &end, 10);
        if (end == p) {
            break;
        }
        struct stat_line stat;
        if (read_stat((pid_t)pid, &stat)) {
            add_child(ret, (pid_t)pid, &stat);
        }
        p = end + strspn(end, " ");
    }
}

static void children_fini(struct children *c)
{
    for (size_t i = 0; i < c->count; i++) {
        trk_proc_fini(&c->list[i]);
    }
}

/* The number a process has in its own PID namespace. */
static long inner_pid(pid_t pid)
{
    char text[8192];
    size_t len;
    if (!read_proc(pid, "status", text, sizeof(text), &len)) {
        return -1;
    }
    const char *line = strstr(text, "\nNSpid:");
    if (line == NULL) {
        return -1;
    }
    line += strlen("\nNSpid:");
    size_t end = strcspn(line, "\n");
    const char *last = line;
    for (size_t i = 0; i < end; i++) {
        if (isspace((unsigned char)line[i])) {
            last = line + i + 1;
        }
    }
    return strtol(last, NULL, 10);
}

/* bubblewrap (tracked) -> its namespace's init -> the wrapper, the init's first child. */
void process_terminate(const struct process_target *p, const json_t *doc)
{
    struct trk_proc proc;
    if (!workload_process(p, doc, &proc)) {
        return;
    }
    bool is_sent = false;
    if (strcmp(workload_text(doc, "sandbox"), "bwrap") == 0) {
        struct children inits, wrappers;
        find_children(proc.pid, &inits);
        for (size_t i = 0; i < inits.count; i++) {
            find_children(inits.list[i].pid, &wrappers);
            for (size_t k = 0; k < wrappers.count; k++) {
                if (inner_pid(wrappers.list[k].pid) == 2) {
                    is_sent = trk_proc_signal(&wrappers.list[k], SIGTERM, NULL) == 0 || is_sent;
                }
            }
            children_fini(&wrappers);
        }
        children_fini(&inits);
    }
    if (!is_sent) { /* no sandbox, or still being set up: then nothing of the user's runs yet */
        may_fail(trk_proc_signal(&proc, SIGTERM, NULL));
    }
    trk_proc_fini(&proc);
}

struct sweep {
    char mark[80]; /* what to look for in the environment; "": nothing */
    pid_t session; /* members of this session, but for its leader; 0: none */
    size_t found;
};
static void sweep_one(void *ctx, pid_t pid, const struct stat_line *stat)
{
    struct sweep *sweep = ctx;
    if (pid <= 1 || pid == getpid() || stat->state == 'Z' || stat->state == 'X') {
        return;
    }
    bool is_ours = sweep->session > 1 && stat->session == sweep->session && pid != sweep->session;
    if (!is_ours && sweep->mark[0] != '\0') {
        char environment[65536];
        size_t len;
        is_ours = read_proc(pid, "environ", environment, sizeof(environment), &len) &&
                  memmem(environment, len, sweep->mark, strlen(sweep->mark) + 1) !=
                      NULL; /* as a whole */
    }
    struct trk_proc proc;
    if (is_ours && trk_proc_adopt(pid, stat->start_ticks, &proc, NULL) == 0) {
        sweep->found++;
        may_fail(trk_proc_signal(&proc, SIGKILL, NULL));
        trk_proc_fini(&proc);
    }
}

/* While the leader lives (stopped), its session's number is its own; so the others go first. */
static void kill_session(pid_t leader)
{
    struct sweep sweep = {.session = leader};
    int64_t deadline = trk_now_ns() + KILL_TIMEOUT_MS * TRK_NS_PER_MS;
    do {
        sweep.found = 0;
        each_process(sweep_one, &sweep);
    } while (sweep.found > 0 && trk_now_ns() < deadline);
}

static void kill_tracked(const struct process_target *p, const json_t *doc)
{
    struct trk_proc proc;
    if (!workload_process(p, doc, &proc)) {
        return;
    }
    /* Stopped first, so that it starts nothing between the look and the kill. */
    may_fail(trk_proc_signal(&proc, SIGSTOP, NULL));
    struct stat_line stat = {0};
    int64_t deadline = trk_now_ns() + 200 * TRK_NS_PER_MS;
    while (read_stat(proc.pid, &stat) && strchr("TtZX", stat.state) == NULL &&
           trk_now_ns() < deadline) {
        trk_sleep_ms(1);
    }
    struct children inits = {0};
    if (strcmp(workload_text(doc, "sandbox"), "bwrap") == 0) {
        find_children(proc.pid, &inits);
        for (size_t i = 0; i < inits.count; i++) {
            may_fail(trk_proc_signal(&inits.list[i], SIGKILL, NULL));
        }
    } else {
        kill_session(proc.pid);
    }
    may_fail(trk_proc_signal(&proc, SIGKILL, NULL));
    may_fail(trk_proc_wait(&proc, KILL_TIMEOUT_MS, NULL, NULL));
    for (size_t i = 0; i < inits.count; i++) {
        /* An init has ended when everything in its namespace has. */
        may_fail(trk_proc_wait(&inits.list[i], KILL_TIMEOUT_MS, NULL, NULL));
    }
    children_fini(&inits);
    trk_proc_fini(&proc);
}

int process_kill_all(const struct process_target *p, const char *id, const json_t *doc,
                     struct trk_err *err)
{
    kill_tracked(p, doc);
    struct sweep sweep = {0};
    snprintf(sweep.mark, sizeof(sweep.mark), "%s=%s", JOB_MARK, id);
    int64_t deadline = trk_now_ns() + KILL_TIMEOUT_MS * TRK_NS_PER_MS;
    for (;;) {
        size_t found = trk_cgroups_kill(&p->cgroups, id);
        sweep.found = 0;
        each_process(sweep_one, &sweep);
        if (found + sweep.found == 0) {
            break;
        }
        if (trk_now_ns() > deadline) {
            return trk_err_set(err, TRK_TIMEOUT,
                               "%zu processes of generation %s do not end after SIGKILL",
                               found + sweep.found, id);
        }
        trk_sleep_ms(1);
    }
    trk_cgroups_remove(&p->cgroups, id);
    return 0;
}
