/*
 * watch.c - the thread that sees jobs end: notes the reason, starts them again with growing pauses,
 * finishes graceful stops, keeps logs bounded.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/base/tree.h"
#include "libtrack/data/json.h"
#include "lifecycle/infra/process/internal.h"

enum {
    LOOK_MS = 1000,
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MAX_MS = 30000,
    STABLE_MS = 60000,    /* ran so long: the next end counts as the first */
    OOM_RECENT_MS = 5000, /* what ends so soon after has ended for that */
    LOG_BYTES_MAX = 10 << 20,
    FLOOD_MS = 50, /* until the next look at a log that grows so fast */
    COLLECT_MS = 600000,
    DISK_LOOK_NS = 10000000, /* of looking into folders at once */
    DISK_URGENT_NS = 500000000,
    DISK_LEFT_PART = 20, /* less than so much of the disk is left */
};

/* 128+n or n, as bubblewrap wrote it down; -1 when it did not. */
static int sandbox_exit_code(const struct process_target *p, const char *id)
{
    trk_autofree char *path = workload_path(p, id, "status.json");
    trk_autofree char *text = NULL;
    size_t len;
    if (trk_file_read(path, 65536, &text, &len, NULL) < 0) {
        return -1;
    }
    const char *found = strstr(text, "\"exit-code\":");
    return found != NULL ? (int)strtol(found + strlen("\"exit-code\":"), NULL, 10) : -1;
}

static int plain_exit_code(const json_t *doc)
{
    int status;
    pid_t pid = (pid_t)workload_int(doc, "pid");
    if (pid <= 0 || waitpid(pid, &status, WNOHANG) != pid) {
        return -1; /* not our child: another lifecycle started it */
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void add_last_output(const struct process_target *p, const char *id, struct trk_buf *buf)
{
    trk_autofree char *path = workload_path(p, id, "output.log");
    struct trk_buf tail;
    trk_buf_init(&tail, 4096);
    if (trk_file_tail(path, 5, 1000, &tail, NULL) == 0 && tail.len > 0) {
        while (tail.len > 0 && tail.data[tail.len - 1] == '\n') {
            tail.data[--tail.len] = '\0';
        }
        (void)trk_buf_addf(buf, "; last output: %s", tail.data);
    }
    trk_buf_fini(&tail);
}

static void describe_exit(const struct process_target *p, const char *id, const json_t *doc,
                          struct trk_buf *buf)
{
    if (json_is_true(json_object_get(doc, "is_full"))) {
        (void)trk_buf_addf(
            buf,
            "its project folder has grown by more than %s (process_disk_max): started "
            "anew with the folder as it was deployed",
            trk_size_text((uint64_t)p->limits.disk_bytes).text);
        return;
    }
    int code = strcmp(workload_text(doc, "sandbox"), "bwrap") == 0 ? sandbox_exit_code(p, id)
                                                                   : plain_exit_code(doc);
    bool is_oom = trk_cgroups_oom_kills(&p->cgroups, id) > workload_int(doc, "oom_kills") ||
                  workload_int(doc, "oom_ms") + OOM_RECENT_MS > trk_wall_ms();
    if (is_oom) {
        (void)trk_buf_addf(buf, "out of memory: killed at its limit of %lld MiB (memory_max)",
                           (long long)(workload_int(doc, "memory_max_bytes") >> 20));
    } else if (strcmp(workload_text(doc, "boot_id"), p->boot_id) != 0) {
        (void)trk_buf_adds(buf, "ended with the host's restart");
    } else if (code < 0) {
        (void)trk_buf_adds(buf, "ended while nobody looked (exit status unknown)");
    } else if (code > 128 && code < 128 + NSIG) {
        (void)trk_buf_addf(buf, "killed by signal %d (%s)", code - 128,
                           sigdescr_np(code - 128) != NULL ? sigdescr_np(code - 128) : "unknown");
    } else {
        (void)trk_buf_addf(buf, "exited with status %d", code);
    }
    add_last_output(p, id, buf);
}

/* Doubling pauses with up to half of each at random, so that many jobs do not come back at once. */
static int64_t backoff_ms(int64_t failures)
{
    int64_t pause = BACKOFF_FIRST_MS;
    for (int64_t i = 1; i < failures && pause < BACKOFF_MAX_MS; i++) {
        pause *= 2;
    }
    pause = pause > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : pause;
    uint32_t random = 0;
    ssize_t n = getrandom(&random, sizeof(random), GRND_NONBLOCK);
    (void)n;
    return pause / 2 + (int64_t)(random % (uint32_t)(pause / 2 + 1));
}

void process_note_exit(struct process_target *p, const char *id, json_t *doc)
{
    struct trk_buf reason;
    struct trk_err err = {0};
    trk_buf_init(&reason, 4096);
    describe_exit(p, id, doc, &reason);
    /* What it left behind must not meet its successor. */
    if (process_kill_all(p, id, doc, &err) < 0) {
        trk_log_warn("a job's processes remain", "generation", id, "error", err.text, NULL);
    }
    int64_t ran_ms = trk_wall_ms() - workload_int(doc, "started_ms");
    int64_t failures = ran_ms > STABLE_MS ? 1 : workload_int(doc, "failures") + 1;
    workload_set_text(doc, "state", STATE_BACKOFF);
    workload_set_text(doc, "reason", reason.data);
    workload_set_int(doc, "failures", failures);
    workload_set_int(doc, "pid", 0);
    workload_set_int(doc, "next_start_ms", trk_wall_ms() + backoff_ms(failures));
    trk_log_warn("job ended by itself", "job", workload_text(doc, "job_name"), "version",
                 workload_text(doc, "job_version"), "generation", id, "reason", reason.data, NULL);
    if (workload_save(p, id, doc, &err) < 0) {
        trk_log_error("a job's end cannot be noted", "generation", id, "error", err.text, NULL);
    }
    process_changed(p, id);
    trk_buf_fini(&reason);
}

/* What has filled its folder gets it as it was deployed. */
static int renew_folder(struct process_target *p, const char *id, json_t *doc, struct trk_err *err)
{
    if (!json_is_true(json_object_get(doc, "is_full"))) {
        return 0;
    }
    trk_autofree char *code = workload_path(p, id, "src/job");
    const struct infra_generation_spec spec = {.generation_id = id,
                                               .image_name = workload_text(doc, "image_name"),
                                               .image_digest = workload_text(doc, "image_digest")};
    int rc = trk_rm_rf(code, err);
    rc = rc == 0 ? process_image_fetch(p, &spec, doc, err) : rc;
    if (rc == 0) {
        (void)json_object_del(doc, "is_full");
    }
    return rc;
}

static void start_again(struct process_target *p, const char *id, json_t *doc)
{
    struct trk_err err = {0};
    workload_set_int(doc, "restarts", workload_int(doc, "restarts") + 1);
    if (renew_folder(p, id, doc, &err) < 0 || process_launch(p, id, doc, &err) < 0) {
        int64_t failures = workload_int(doc, "failures") + 1;
        workload_set_text(doc, "state", STATE_BACKOFF);
        workload_set_text(doc, "reason", err.text);
        workload_set_int(doc, "failures", failures);
        workload_set_int(doc, "pid", 0);
        workload_set_int(doc, "next_start_ms", trk_wall_ms() + backoff_ms(failures));
        trk_log_error("job cannot be started again", "generation", id, "error", err.text, NULL);
        if (workload_save(p, id, doc, &err) < 0) {
            trk_log_error("a job's state cannot be kept", "generation", id, "error", err.text,
                          NULL);
        }
        return;
    }
    trk_log_info("job started again", "job", workload_text(doc, "job_name"), "version",
                 workload_text(doc, "job_version"), "generation", id, NULL);
}

static void finish_stop(struct process_target *p, const char *id, json_t *doc)
{
    struct trk_err err = {0};
    if (process_kill_all(p, id, doc, &err) == 0) {
        workload_set_text(doc, "state", STATE_STOPPED);
        workload_set_int(doc, "pid", 0);
    } else {
        workload_set_int(doc, "kill_at_ms", trk_wall_ms() + 1000);
    }
    if (err.code < 0 || workload_save(p, id, doc, &err) < 0) {
        trk_log_warn("a job cannot be stopped", "generation", id, "error", err.text, NULL);
    }
}

/* Keeps the last file and the one before, cut in place: the job holds the file open for appending.
 * No more than what was there is copied: a flooding job must not lead the copy on. True when it is
 * flooding, and should be looked at again soon. */
static bool bound_log(const struct process_target *p, const char *id)
{
    trk_autofree char *path = workload_path(p, id, "output.log");
    struct stat st;
    if (stat(path, &st) < 0 || st.st_size <= LOG_BYTES_MAX) {
        return false;
    }
    trk_autofree char *old = workload_path(p, id, "output.log.1");
    trk_autoclose int in = open(path, O_RDWR | O_CLOEXEC);
    trk_autoclose int out = open(old, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (in < 0 || out < 0) {
        return false;
    }
    bool is_flood = st.st_size > 2 * (off_t)LOG_BYTES_MAX; /* its end is what matters */
    off_t left = is_flood ? LOG_BYTES_MAX : st.st_size;
    (void)lseek(in, st.st_size - left, SEEK_SET);
    for (ssize_t n = 1; left > 0 && n > 0; left -= n) {
        n = copy_file_range(in, NULL, out, NULL, (size_t)left, 0);
    }
    may_fail(ftruncate(in, 0));
    return is_flood;
}

/* Ends a job that has filled its folder. */
static void bound_disk(struct process_target *p, const char *id)
{
    trk_autofree char *code = workload_path(p, id, "src/job");
    struct trk_tree_usage usage = {0};
    int rc = trk_tree_measure(code, &usage, NULL);
    int64_t most = p->limits.disk_bytes;
    if (rc == TRK_UNAVAILABLE || (rc == 0 && (int64_t)usage.bytes <= most)) {
        return;
    }
    trk_autoclose int lock = -1;
    json_auto_t *doc = NULL;
    if (workload_lock_known(p, id, &lock, &doc, NULL) == 0 && workload_is(doc, STATE_RUNNING) &&
        (rc < 0 || (int64_t)usage.bytes > most + workload_int(doc, "code_bytes"))) {
        (void)json_object_set_new(doc, "is_full", json_true());
        process_note_exit(p, id, doc);
    }
}

/* A few folders a turn, so that large ones take little of the watcher's time; more of them when
 * the disk is nearly full. */
static void bound_disks(struct process_target *p, char (*ids)[40], size_t count, size_t *next)
{
    struct statvfs fs;
    int64_t began_ns = trk_now_ns();
    bool is_urgent = statvfs(p->jobs_dir, &fs) == 0 && fs.f_bavail < fs.f_blocks / DISK_LEFT_PART;
    for (size_t i = 0; i < count && p->is_sandboxed && p->limits.disk_bytes > 0; i++) {
        bound_disk(p, ids[*next % count]);
        *next = (*next + 1) % count;
        if (trk_now_ns() - began_ns > (is_urgent ? DISK_URGENT_NS : DISK_LOOK_NS)) {
            break;
        }
    }
}

/* A process of the job was ended for want of memory, and the job lives on: its log says why. */
static void note_oom(const struct process_target *p, const char *id)
{
    trk_autoclose int lock = -1;
    json_auto_t *doc = NULL;
    int64_t kills = trk_cgroups_oom_kills(&p->cgroups, id);
    if (workload_lock_known(p, id, &lock, &doc, NULL) < 0 || !workload_is(doc, STATE_RUNNING) ||
        kills <= workload_int(doc, "oom_kills")) {
        return;
    }
    workload_set_int(doc, "oom_kills", kills);
    workload_set_int(doc, "oom_ms", trk_wall_ms());
    may_fail(workload_save(p, id, doc, NULL));
    trk_autofree char *log = workload_path(p, id, "output.log");
    trk_autoclose int fd = open(log, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd >= 0) {
        dprintf(fd,
                "[racetrack] out of memory: a process of the job was ended at its limit of %lld "
                "MiB (memory_max)\n",
                (long long)(workload_int(doc, "memory_max_bytes") >> 20));
    }
}

/* What one generation needs now; *ret_due_ms: when to look again at the latest (wall clock). */
static void tend(struct process_target *p, const char *id, int64_t *ret_due_ms)
{
    json_auto_t *doc = NULL;
    struct trk_proc proc;
    trk_autoclose int lock = -1;
    if (workload_load(p, id, &doc, NULL) < 0) {
        return;
    }
    bool is_alive = workload_process(p, doc, &proc);
    if (is_alive) {
        trk_proc_fini(&proc);
    }
    int64_t now = trk_wall_ms(), due = INT64_MAX;
    bool is_act = (workload_is(doc, STATE_RUNNING) && !is_alive) ||
                  (workload_is(doc, STATE_STOPPING) &&
                   (!is_alive || workload_int(doc, "kill_at_ms") <= now)) ||
                  (workload_is(doc, STATE_BACKOFF) && workload_int(doc, "next_start_ms") <= now);
    if (is_act) {
        /* Again under the lock: another thread or lifecycle may have been faster. */
        json_decref(doc);
        doc = NULL;
        if (workload_lock_known(p, id, &lock, &doc, NULL) < 0) {
            return;
        }
        is_alive = workload_process(p, doc, &proc);
        if (is_alive) {
            trk_proc_fini(&proc);
        }
        if (workload_is(doc, STATE_RUNNING) && !is_alive) {
            process_note_exit(p, id, doc);
        } else if (workload_is(doc, STATE_STOPPING) &&
                   (!is_alive || workload_int(doc, "kill_at_ms") <= now)) {
            finish_stop(p, id, doc);
            process_changed(p, id);
        } else if (workload_is(doc, STATE_BACKOFF) && workload_int(doc, "next_start_ms") <= now) {
            start_again(p, id, doc);
            process_changed(p, id);
        }
    } else if (workload_is(doc, STATE_RUNNING) &&
               trk_cgroups_oom_kills(&p->cgroups, id) > workload_int(doc, "oom_kills")) {
        note_oom(p, id);
    }
    if (workload_is(doc, STATE_BACKOFF)) {
        due = workload_int(doc, "next_start_ms");
    } else if (workload_is(doc, STATE_STOPPING)) {
        due = workload_int(doc, "kill_at_ms");
    }
    *ret_due_ms = due < *ret_due_ms ? due : *ret_due_ms;
}

/* Sleeps until a process of a job ends, somebody wakes us, or due_ms (wall clock). */
static void sleep_until(struct process_target *p, char (*ids)[40], size_t count, int64_t due_ms)
{
    struct pollfd *fds = trk_xcalloc(count + 1, sizeof(*fds));
    size_t fd_count = 0;
    fds[fd_count++] = (struct pollfd){.fd = p->wake_fd, .events = POLLIN};
    for (size_t i = 0; i < count; i++) {
        json_auto_t *doc = NULL;
        struct trk_proc proc;
        if (workload_load(p, ids[i], &doc, NULL) == 0 &&
            (workload_is(doc, STATE_RUNNING) || workload_is(doc, STATE_STOPPING)) &&
            workload_process(p, doc, &proc) && proc.pidfd >= 0) {
            fds[fd_count++] = (struct pollfd){.fd = proc.pidfd, .events = POLLIN};
        }
    }
    int64_t wait_ms = due_ms - trk_wall_ms();
    wait_ms = wait_ms > LOOK_MS ? LOOK_MS : wait_ms < 0 ? 0 : wait_ms;
    (void)poll(fds, fd_count, (int)wait_ms);
    if (fds[0].revents != 0) {
        eventfd_t value;
        (void)eventfd_read(p->wake_fd, &value);
    }
    for (size_t i = 1; i < fd_count; i++) {
        (void)close(fds[i].fd);
    }
    free(fds);
}

void process_wake(struct process_target *p)
{
    (void)eventfd_write(p->wake_fd, 1);
}

void *process_watch(void *target)
{
    struct process_target *p = target;
    int64_t collect_at = trk_now_ns() + COLLECT_MS * TRK_NS_PER_MS;
    size_t next_disk = 0;
    while (!atomic_load(&p->stop)) {
        trk_autofree char(*ids)[40] = NULL;
        size_t count = 0;
        int64_t due_ms = INT64_MAX;
        struct trk_err err = {0};
        if (workload_ids(p, &ids, &count, &err) < 0) {
            trk_log_error("jobs cannot be listed", "error", err.text, NULL);
        }
        for (size_t i = 0; i < count; i++) {
            tend(p, ids[i], &due_ms);
            if (bound_log(p, ids[i]) && due_ms > trk_wall_ms() + FLOOD_MS) {
                due_ms = trk_wall_ms() + FLOOD_MS;
            }
        }
        bound_disks(p, ids, count, &next_disk);
        if (trk_now_ns() > collect_at) {
            process_layers_collect(p);
            collect_at = trk_now_ns() + COLLECT_MS * TRK_NS_PER_MS;
        }
        sleep_until(p, ids, count, due_ms);
    }
    return NULL;
}

void process_changed(struct process_target *p, const char *id)
{
    char generation[40];
    (void)workload_split_id(id, generation);
    pthread_mutex_lock(&p->mutex);
    if (p->changed != NULL) {
        p->changed(p->changed_ctx, generation);
    }
    pthread_mutex_unlock(&p->mutex);
}

void process_tell(const struct infra_target *t,
                  void (*changed)(void *ctx, const char *generation_id), void *ctx)
{
    struct process_target *p = t->state;
    pthread_mutex_lock(&p->mutex);
    p->changed = changed;
    p->changed_ctx = ctx;
    pthread_mutex_unlock(&p->mutex);
}
