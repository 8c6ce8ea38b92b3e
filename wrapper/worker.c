#include "wrapper/front.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

#define CONTROL_MAX   (64 << 20)
#define FIRST_BACKOFF (100 * TRK_NS_PER_MS)

extern char **environ;

static void set_failure(struct front *front, const char *text)
{
    free(front->failure);
    front->failure = trk_xstrdup(text);
}

static int64_t backoff(unsigned tries)
{
    if (tries <= 1) {
        return 0;
    }
    int64_t delay = FIRST_BACKOFF << (tries - 2 > 16 ? 16 : tries - 2);
    return delay < FRONT_RESTART_MAX_NS ? delay : FRONT_RESTART_MAX_NS;
}

static void plan_start(struct front *front, unsigned tries)
{
    front->restart_ns = trk_now_ns() + backoff(tries);
    front->next_tick_ns = 0;
}

/* ---- start ---- */

static int spawn(struct worker *worker, int control_out, int life_in, struct trk_err *err)
{
    const struct wrapper_options *o = &worker->front->options;
    trk_autofree char *script = trk_xasprintf("%s/start.py", o->lib_dir);
    const char *argv[16];
    size_t n = 0;
    argv[n++] = o->python;
    argv[n++] = "-s";
    if (o->python_is_default) {
        argv[n++] = "-S"; /* start.py does what is needed of `site`, in a tenth of the time */
    }
    argv[n++] = script;
    argv[n++] = "3";
    argv[n++] = "4";
    argv[n++] = "5";
    argv[n++] = "6";
    argv[n++] = o->entrypoint_path;
    argv[n++] = o->entrypoint_class != NULL ? o->entrypoint_class : "";
    argv[n++] = o->packages != NULL ? o->packages : "";
    argv[n] = NULL;
    const struct trk_proc_fd fds[] = {
        {worker->ring.memfd, 3},
        {worker->front->event_fd, 4},
        {control_out, 5},
        {life_in, 6},
    };
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    options.argv = argv;
    options.env = (const char *const *)environ;
    options.fds = fds;
    options.fd_count = TRK_COUNT(fds);
    options.stdout_fd = 1;
    options.stderr_fd = 2;
    options.die_with_parent = true;
    return trk_proc_spawn(&options, &worker->proc, err);
}

static int start(struct front *front, struct trk_err *err)
{
    struct worker *worker = trk_xcalloc(1, sizeof(*worker));
    worker->source.kind = SOURCE_CONTROL;
    worker->front = front;
    worker->control_fd = worker->life_fd = -1;
    worker->started_ns = trk_now_ns();
    int control[2] = {-1, -1}, life[2] = {-1, -1};
    int code = ring_front_init(&worker->ring, front->options.body_max_bytes);
    if (code < 0) {
        free(worker);
        return trk_err_errno(err, -code, "making shared memory for the worker");
    }
    trk_buf_init(&worker->control, CONTROL_MAX);
    if (pipe2(control, O_CLOEXEC) < 0 || pipe2(life, O_CLOEXEC) < 0) {
        code = trk_err_errno(err, errno, "making pipes for the worker");
    } else {
        code = spawn(worker, control[1], life[0], err);
    }
    (void)close(control[1]);
    (void)close(life[0]);
    worker->control_fd = control[0];
    worker->life_fd = life[1];
    if (code == 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = worker};
        (void)fcntl(worker->control_fd, F_SETFL, O_NONBLOCK);
        (void)epoll_ctl(front->epoll_fd, EPOLL_CTL_ADD, worker->control_fd, &event);
    } else {
        (void)close(worker->control_fd);
        (void)close(worker->life_fd);
        trk_buf_fini(&worker->control);
        ring_front_fini(&worker->ring);
        free(worker);
        return code;
    }
    worker->next = front->workers;
    front->workers = worker;
    front->loading = worker;
    return 0;
}

static void empty_folder(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            trk_autofree char *inner = trk_xasprintf("%s/%s", path, entry->d_name);
            (void)!trk_rm_rf(inner, NULL);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
}

/* What the last one filled must not keep the next one from living. */
static void empty_tmp(const struct front *front)
{
    for (const struct worker *worker = front->workers; worker != NULL; worker = worker->next) {
        if (worker->state != WORKER_DEAD) {
            return;
        }
    }
    empty_folder("/tmp");
    empty_folder("/dev/shm");
}

void workers_start(struct front *front)
{
    struct trk_err err = {0};
    if (front->options.has_own_tmp) {
        empty_tmp(front);
    }
    front->restart_ns = 0;
    if (front->loading != NULL || start(front, &err) == 0) {
        return;
    }
    trk_log_error("cannot start the job's process", "error", err.text, NULL);
    (void)trk_err_wrap(&err, "the job's process cannot be started");
    set_failure(front, err.text);
    front->load_tries++;
    if (front->load_tries >= FRONT_LOAD_TRIES || err.code == TRK_NOT_FOUND) {
        front->is_failed = true;
        calls_fail_waiting(front, front->failure);
    }
    plan_start(front, front->load_tries + 2);
}

/* ---- end ---- */

void worker_kill(struct worker *worker, const char *reason)
{
    if (worker->state == WORKER_DEAD || worker->is_killed) {
        return;
    }
    worker->is_killed = true;
    worker->kill_reason = reason;
    struct trk_err err = {0};
    (void)!trk_proc_signal(&worker->proc, SIGKILL, &err);
}

static void retire(struct worker *worker)
{
    struct front *front = worker->front;
    worker->state = WORKER_RETIRED;
    worker->retired_ns = trk_now_ns();
    front->next_tick_ns = 0;
    calls_reclaim(front, worker);
    if (worker->calls.count == worker->abandoned) {
        worker_kill(worker, "another one took its place");
    }
}

void worker_replace(struct worker *worker, const char *reason)
{
    struct front *front = worker->front;
    if (worker->state != WORKER_READY || worker->has_hung) {
        return;
    }
    worker->has_hung = true;
    trk_log_warn("replacing the job's process", "reason", reason, NULL);
    workers_start(front);
}

static void describe_end(const struct worker *worker, int status, char *out, size_t size)
{
    if (worker->is_killed) {
        (void)snprintf(out, size, "was ended: %s", worker->kill_reason);
    } else if (WIFSIGNALED(status)) {
        (void)snprintf(out, size, "was killed by signal %d (%s)", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    } else {
        (void)snprintf(out, size, "ended by itself with exit status %d", WEXITSTATUS(status));
    }
}

static void fail_running(struct front *front, struct worker *worker, const char *how)
{
    trk_autofree char *text = trk_xasprintf("the job's process %s while it handled this request",
                                            how);
    while (worker->calls.first != NULL) {
        call_fail(front, worker->calls.first, 502, "WorkerCrashed", text);
    }
}

static void close_worker(struct worker *worker)
{
    (void)close(worker->control_fd); /* epoll forgets it with its last descriptor */
    (void)close(worker->life_fd);
    worker->control_fd = worker->life_fd = -1;
    trk_proc_fini(&worker->proc);
    trk_buf_fini(&worker->control);
    ring_front_fini(&worker->ring);
}

static void on_load_crash(struct front *front, const char *how)
{
    trk_autofree char *text = trk_xasprintf("the job's process %s while it loaded the job", how);
    set_failure(front, text);
    trk_log_error(text, NULL);
    front->load_tries++;
    if (front->load_tries >= FRONT_LOAD_TRIES) {
        front->is_failed = true;
        if (front->current == NULL) {
            calls_fail_waiting(front, front->failure);
        }
    }
    plan_start(front, front->load_tries + 1);
}

static void on_end(struct worker *worker, int status)
{
    struct front *front = worker->front;
    char how[256];
    describe_end(worker, status, how, sizeof(how));
    worker_on_control(worker); /* what it said before */
    calls_reap(front, worker);
    bool was_current = front->current == worker;
    bool was_loading = front->loading == worker;
    front->current = was_current ? NULL : front->current;
    front->loading = was_loading ? NULL : front->loading;
    worker->state = WORKER_DEAD;
    calls_reclaim(front, worker);
    fail_running(front, worker, how);
    close_worker(worker);
    if (front->is_ended) {
        return;
    }
    if (worker->has_failed) {
        if (front->has_loaded && was_loading) { /* it worked before: what it needs may come back */
            plan_start(front, ++front->load_tries + 2);
        }
    } else if (was_loading) {
        on_load_crash(front, how);
    } else if (was_current) {
        trk_log_error("the job's process is gone, starting another", "how", how, NULL);
        bool is_stable = worker->has_served || trk_now_ns() - worker->started_ns > FRONT_STABLE_NS;
        front->restarts = is_stable ? 1 : front->restarts + 1;
        if (front->loading == NULL) {
            plan_start(front, front->restarts);
        }
    }
}

void workers_reap(struct front *front)
{
    int status = 0;
    pid_t pid;
    /* Any child: as a container's first process the front also gets what user code left behind. */
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (struct worker *worker = front->workers; worker != NULL; worker = worker->next) {
            if (worker->state != WORKER_DEAD && worker->proc.pid == pid) {
                on_end(worker, status);
                break;
            }
        }
    }
    calls_pump(front);
}

void workers_free_dead(struct front *front)
{
    struct worker **link = &front->workers;
    while (*link != NULL) {
        struct worker *worker = *link;
        if (worker->state == WORKER_DEAD) {
            *link = worker->next;
            free(worker);
        } else {
            link = &worker->next;
        }
    }
}

void workers_tick(struct front *front, int64_t now)
{
    for (struct worker *worker = front->workers; worker != NULL; worker = worker->next) {
        if (worker->state != WORKER_RETIRED) {
            continue;
        }
        if (worker->calls.count == worker->abandoned) {
            worker_kill(worker, "another one took its place");
        } else if (now - worker->retired_ns > FRONT_RETIRE_NS) {
            worker_kill(worker, "another request hung in it for too long");
        }
    }
    if (front->restart_ns != 0 && now >= front->restart_ns) {
        workers_start(front);
    }
}

void workers_end_all(struct front *front)
{
    front->is_ended = true;
    for (struct worker *worker = front->workers; worker != NULL; worker = worker->next) {
        if (worker->state != WORKER_DEAD) {
            worker_kill(worker, "the job ends");
            (void)waitpid(worker->proc.pid, NULL, 0);
        }
    }
}

/* ---- what it says ---- */

static void on_ready(struct worker *worker, const json_t *message)
{
    struct front *front = worker->front;
    struct trk_err err = {0};
    if (job_load(front, message, &err) < 0) {
        set_failure(front, err.text);
        worker->has_failed = true;
        front->is_failed = true;
        worker_kill(worker, "its announcement was not understood");
        return;
    }
    struct worker *old = front->current;
    worker->state = WORKER_READY;
    front->current = worker;
    front->loading = NULL;
    bool is_first = !front->has_loaded;
    front->has_loaded = true;
    front->is_failed = false;
    front->load_tries = 0;
    free(TRK_STEAL(front->failure));
    if (old != NULL) {
        retire(old);
    }
    calls_pump(front);
    if (is_first) {
        trk_autofree char *url = trk_xasprintf(
            "http://%s:%d/", strcmp(front->host, "0.0.0.0") == 0 ? "127.0.0.1" : front->host,
            front->port);
        trk_log_info("the job is ready", "docs", url, "class",
                     trk_json_string_or(message, "class", ""), NULL);
    } else {
        trk_log_info("the job's new process is ready", NULL);
    }
}

static void on_failed(struct worker *worker, const json_t *message)
{
    struct front *front = worker->front;
    set_failure(front, trk_json_string_or(message, "error", "loading the job failed"));
    worker->has_failed = true;
    front->is_failed = front->current == NULL;
    if (front->is_failed) {
        calls_fail_waiting(front, front->failure);
    }
}

static void on_message(struct worker *worker, const char *text, size_t len)
{
    json_auto_t *message = NULL;
    struct trk_err err = {0};
    if (trk_json_parse(text, len, &message, &err) < 0) {
        (void)trk_err_wrap(&err, "the job's description of itself is not usable");
        trk_log_error(err.text, NULL);
        set_failure(worker->front, err.text);
        worker->has_failed = true;
        worker->front->is_failed = worker->front->current == NULL;
        worker_kill(worker, "its announcement was not understood");
        return;
    }
    const char *kind = trk_json_string_or(message, "kind", "");
    if (worker->state != WORKER_LOADING || worker->has_failed) {
        return;
    }
    if (strcmp(kind, "ready") == 0) {
        on_ready(worker, message);
    } else if (strcmp(kind, "failed") == 0) {
        on_failed(worker, message);
    }
}

void worker_on_control(struct worker *worker)
{
    if (worker->state == WORKER_DEAD || worker->control_fd < 0) {
        return;
    }
    for (;;) {
        char *room = trk_buf_reserve(&worker->control, 65536);
        if (room == NULL) {
            worker_kill(worker, "it said too much about itself");
            return;
        }
        ssize_t n = read(worker->control_fd, room, 65536);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            if (n == 0) {
                (void)epoll_ctl(worker->front->epoll_fd, EPOLL_CTL_DEL, worker->control_fd, NULL);
            }
            break;
        }
        trk_buf_commit(&worker->control, (size_t)n);
    }
    char *end;
    while (worker->state != WORKER_DEAD && worker->control.len > 0 &&
           (end = memchr(worker->control.data, '\n', worker->control.len)) != NULL) {
        size_t len = (size_t)(end - worker->control.data);
        on_message(worker, worker->control.data, len);
        trk_buf_consume(&worker->control, len + 1);
    }
}
