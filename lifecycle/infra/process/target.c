#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/crypto.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "lifecycle/infra/process/internal.h"
#include "lifecycle/infra/registry.h"

/* -- documents -- */

static void fill_observation(const char *id, const json_t *doc, enum infra_state state,
                             struct infra_observation *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->replica = workload_split_id(id, ret->generation_id);
    snprintf(ret->job_name, sizeof(ret->job_name), "%s", workload_text(doc, "job_name"));
    snprintf(ret->job_version, sizeof(ret->job_version), "%s", workload_text(doc, "job_version"));
    snprintf(ret->address, sizeof(ret->address), "%s", workload_text(doc, "address"));
    snprintf(ret->reason, sizeof(ret->reason), "%s", workload_text(doc, "reason"));
    /* It may have been cut within a character. */
    trk_utf8_repair(ret->reason, strlen(ret->reason));
    ret->restarts = workload_int(doc, "restarts");
    ret->state = state;
}

static enum infra_state state_of(const json_t *doc)
{
    return workload_is(doc, STATE_RUNNING)     ? INFRA_RUNNING
           : workload_is(doc, STATE_BACKOFF)   ? INFRA_BACKOFF
           : workload_is(doc, STATE_PREPARING) ? INFRA_STARTING
           : workload_is(doc, STATE_STOPPING)  ? INFRA_STOPPING
                                               : INFRA_GONE;
}

static void add_env(struct trk_buf *buf, const char *const *env)
{
    for (; env != NULL && *env != NULL; env++) {
        (void)trk_buf_add(buf, *env, strlen(*env) + 1);
    }
}

/* "K=V\0K=V\0", sealed for this generation, as base64: all of it, for the less said in the open. */
static int seal_env(const struct process_target *p, const struct infra_generation_spec *spec,
                    json_t *doc, struct trk_err *err)
{
    struct trk_buf plain, text;
    trk_autofree void *sealed = NULL;
    size_t len;
    trk_buf_init(&plain, 1 << 20);
    trk_buf_init(&text, 4 << 20);
    add_env(&plain, spec->env);
    add_env(&plain, spec->secret_env);
    int rc = plain.failed ? trk_err_set(err, TRK_TOO_LARGE, "the environment exceeds 1 MiB")
                          : trk_seal(p->secret_key, spec->generation_id, plain.data, plain.len,
                                     &sealed, &len, err);
    if (rc == 0) {
        (void)trk_base64_encode(&text, sealed, len);
        workload_set_text(doc, "env", text.data);
    }
    explicit_bzero(plain.data, plain.len);
    trk_buf_fini(&plain);
    trk_buf_fini(&text);
    return rc;
}

static json_t *make_doc(const struct infra_generation_spec *spec)
{
    json_t *doc = json_object();
    workload_set_text(doc, "generation_id", spec->generation_id);
    workload_set_text(doc, "job_name", spec->job_name);
    workload_set_text(doc, "job_version", spec->job_version);
    workload_set_text(doc, "image_name", spec->image_name);
    workload_set_text(doc, "image_digest", spec->image_digest);
    workload_set_text(doc, "state", STATE_PREPARING);
    workload_set_int(doc, "memory_max_bytes", spec->memory_max_bytes);
    workload_set_int(doc, "cpu_max_milli", spec->cpu_max_milli);
    workload_set_int(doc, "replicas", spec->replicas);
    workload_set_text(doc, "network", spec->network != NULL ? spec->network : "none");
    return doc;
}

/* -- operations -- */

static int remove_locked(struct process_target *p, const char *id, struct trk_err *err)
{
    json_auto_t *doc = NULL;
    if (workload_load(p, id, &doc, NULL) < 0) {
        doc = json_object(); /* missing or damaged: the marks and groups are left to look for */
    }
    if (process_kill_all(p, id, doc, err) < 0) {
        return err->code;
    }
    /* Out of the list first: a lifecycle killed in the middle leaves no half workload. */
    trk_autofree char *dir = workload_path(p, id, NULL);
    trk_autofree char *trash = trk_xasprintf("%s/.removed-%s", p->jobs_dir, id);
    if (trk_rm_rf(trash, err) < 0) {
        return err->code;
    }
    if (rename(dir, trash) < 0) {
        return errno == ENOENT ? 0 : trk_err_errno(err, errno, "removing %s", dir);
    }
    return trk_rm_rf(trash, err);
}

int process_remove_one(struct process_target *p, const char *id, struct trk_err *err)
{
    trk_autoclose int lock = -1;
    if (workload_lock(p, id, &lock, err) < 0) {
        return err->code;
    }
    int rc = remove_locked(p, id, err);
    if (rc == 0) {
        workload_lock_forget(p, id);
    }
    return rc < 0 ? trk_err_wrap(err, "removing generation %s", id) : 0;
}

/* Folder, layers, document, process. Whatever fails takes all of it away again. */
static int prepare_and_launch(struct process_target *p, const struct infra_generation_spec *spec,
                              int64_t port, struct infra_observation *ret, struct trk_err *err)
{
    const char *id = spec->generation_id;
    trk_autofree char *dir = workload_path(p, id, NULL);
    json_auto_t *doc = make_doc(spec);
    workload_set_int(doc, "port", port);
    int rc = trk_mkdir_p(dir, 0755, err);
    if (rc == 0) {
        rc = seal_env(p, spec, doc, err);
    }
    if (rc == 0) {
        rc = process_image_fetch(p, spec, doc, err);
    }
    if (rc == 0) {
        rc = process_launch(p, id, doc, err);
    }
    if (rc < 0) {
        struct trk_err ignored = {0};
        if (remove_locked(p, id, &ignored) == 0) {
            workload_lock_forget(p, id);
        }
        return rc;
    }
    fill_observation(id, doc, INFRA_RUNNING, ret);
    process_wake(p);
    return 0;
}

/* It is there; how many there are together may have changed. */
static void note_replicas(struct process_target *p, const struct infra_generation_spec *spec,
                          json_t *doc)
{
    if (workload_int(doc, "replicas") != spec->replicas) {
        workload_set_int(doc, "replicas", spec->replicas);
        may_fail(workload_save(p, spec->generation_id, doc, NULL));
    }
}

int process_apply_one(struct process_target *p, const struct infra_generation_spec *spec,
                      struct infra_observation *ret, struct trk_err *err)
{
    const char *id = spec->generation_id;
    trk_autoclose int lock = -1;
    json_auto_t *doc = NULL;
    int64_t port = 0; /* that of before, when it is free: then callers need not learn a new one */
    int rc = workload_lock(p, id, &lock, err);
    if (rc == 0 && workload_load(p, id, &doc, NULL) == 0) {
        struct trk_proc proc;
        port = workload_int(doc, "port");
        bool is_alive = workload_process(p, doc, &proc);
        if (is_alive) {
            trk_proc_fini(&proc);
        }
        if (workload_is(doc, STATE_BACKOFF) || (workload_is(doc, STATE_RUNNING) && is_alive)) {
            note_replicas(p, spec, doc);
            fill_observation(id, doc, state_of(doc), ret);
            return 0; /* it is there */
        }
    }
    if (rc == 0) { /* remains of an interrupted start, of a stop, or of before a reboot */
        rc = remove_locked(p, id, err);
    }
    if (rc == 0) {
        rc = prepare_and_launch(p, spec, port, ret, err);
    }
    return rc < 0 ? trk_err_wrap(err, "starting job %s %s", spec->job_name, spec->job_version) : 0;
}

int process_stop_one(struct process_target *p, const char *id, int64_t grace_ms,
                     struct trk_err *err)
{
    trk_autoclose int lock = -1;
    json_auto_t *doc = NULL;
    int rc = workload_lock_known(p, id, &lock, &doc, err);
    if (rc == TRK_NOT_FOUND || rc == TRK_INVALID) {
        return 0; /* whom to ask is not known; removing ends it */
    }
    if (rc == 0 && !workload_is(doc, STATE_STOPPED) && !workload_is(doc, STATE_STOPPING)) {
        workload_set_text(doc, "state", STATE_STOPPING);
        workload_set_int(doc, "kill_at_ms", trk_wall_ms() + grace_ms);
        rc = workload_save(p, id, doc, err);
        process_terminate(p, doc);
        process_wake(p);
    }
    return rc < 0 ? trk_err_wrap(err, "stopping generation %s", id) : 0;
}

/* Nothing is known of its process but the marks it carries; to apply, or to remove, ends that. */
static void fill_damaged(const char *id, const struct trk_err *why, struct infra_observation *ret)
{
    json_auto_t *doc = json_object();
    workload_set_text(doc, "reason", why->text);
    fill_observation(id, doc, INFRA_GONE, ret);
}

int process_observe_one(struct process_target *p, const char *id, struct infra_observation *ret,
                        struct trk_err *err)
{
    json_auto_t *doc = NULL;
    int rc = workload_load(p, id, &doc, err);
    if (rc == TRK_INVALID) {
        fill_damaged(id, err, ret);
        return 0;
    }
    if (rc < 0) {
        return rc;
    }
    struct trk_proc proc;
    bool is_alive = workload_process(p, doc, &proc);
    if (is_alive) {
        trk_proc_fini(&proc);
    } else if (workload_is(doc, STATE_RUNNING)) {
        /* It has just ended: note it now rather than wait for the watcher. */
        trk_autoclose int lock = -1;
        json_decref(doc);
        doc = NULL;
        rc = workload_lock_known(p, id, &lock, &doc, err);
        if (rc < 0) {
            return rc;
        }
        is_alive = workload_process(p, doc, &proc);
        if (is_alive) {
            trk_proc_fini(&proc);
        } else if (workload_is(doc, STATE_RUNNING)) {
            process_note_exit(p, id, doc);
            process_wake(p);
        }
    }
    fill_observation(id, doc, state_of(doc), ret);
    return 0;
}

static size_t count_lines(const struct trk_buf *buf, size_t from)
{
    size_t lines = 0;
    for (size_t i = from; i < buf->len; i++) {
        lines += buf->data[i] == '\n';
    }
    return lines;
}

int process_logs_one(const struct process_target *p, const char *id, size_t tail,
                     struct trk_buf *out, struct trk_err *err)
{
    trk_autofree char *current = workload_path(p, id, "output.log");
    trk_autofree char *former = workload_path(p, id, "output.log.1");
    size_t cap = out->cap_bytes - out->len;
    struct trk_buf last;
    trk_buf_init(&last, cap);
    int rc = trk_file_tail(current, tail, cap, &last, err);
    size_t have = count_lines(&last, 0);
    if (rc == 0 && (tail == 0 || have < tail)) {
        rc = trk_file_tail(former, tail == 0 ? 0 : tail - have, cap - last.len, out, err);
    }
    if (rc == 0) {
        rc = trk_buf_add(out, last.data, last.len);
    }
    trk_buf_fini(&last);
    return rc < 0 ? trk_err_wrap(err, "reading the output of generation %s", id) : 0;
}

/* -- making one -- */

void process_paths_init(struct process_target *p, const char *state_dir)
{
    p->state_dir = trk_xstrdup(state_dir);
    p->jobs_dir = trk_xasprintf("%s/jobs", state_dir);
    p->layers_dir = trk_xasprintf("%s/.layers", p->jobs_dir);
    p->locks_dir = trk_xasprintf("%s/.locks", p->jobs_dir);
    pthread_mutex_init(&p->mutex, NULL);
    p->wake_fd = -1;
    trk_autofree char *boot_id = NULL;
    size_t len;
    if (trk_file_read("/proc/sys/kernel/random/boot_id", 1000, &boot_id, &len, NULL) == 0) {
        snprintf(p->boot_id, sizeof(p->boot_id), "%.*s", (int)strcspn(boot_id, "\n"), boot_id);
    }
}

void process_paths_fini(struct process_target *p)
{
    char **const strings[] = {&p->state_dir, &p->jobs_dir,    &p->layers_dir, &p->locks_dir,
                              &p->wrapper,   &p->wrapper_dir, &p->launcher,   &p->image_store_url,
                              &p->token,     &p->secret_key,  &p->instance};
    for (size_t i = 0; i < TRK_COUNT(strings); i++) {
        free(*strings[i]);
    }
    if (p->wake_fd >= 0) {
        (void)close(p->wake_fd);
    }
    pthread_mutex_destroy(&p->mutex);
}

/* Jobs of a lifecycle that runs as root run as somebody else. */
static int find_user(struct process_target *p, const char *user, struct trk_err *err)
{
    if (geteuid() != 0 || trk_str_is_empty(user)) {
        return 0;
    }
    int64_t number;
    if (trk_parse_int64(user, 0, INT32_MAX, &number, NULL) == 0) {
        p->uid = (uid_t)number;
        p->gid = (gid_t)number;
    } else {
        struct passwd entry, *found = NULL;
        char buffer[4096];
        if (getpwnam_r(user, &entry, buffer, sizeof(buffer), &found) != 0 || found == NULL) {
            return trk_err_set(err, TRK_INVALID, "process_job_user: no user %s on this host", user);
        }
        p->uid = found->pw_uid;
        p->gid = found->pw_gid;
    }
    p->change_user = p->uid != 0;
    return 0;
}

/* The folder to show jobs for the wrapper's sake: an installation's or build's, else its own. */
static char *find_wrapper_dir(const struct process_target *p)
{
    trk_autofree char *dir = trk_xstrdup(p->wrapper);
    *strrchr(dir, '/') = '\0';
    trk_autofree char *parent = trk_xstrdup(dir);
    char *cut = strrchr(parent, '/');
    bool is_bin = cut != NULL && strcmp(cut, "/bin") == 0;
    if (is_bin) {
        *cut = '\0';
    }
    bool is_narrow = is_bin && strchr(parent + (parent[0] == '/'), '/') != NULL;
    return trk_xstrdup(is_narrow && !trk_str_has_prefix(p->state_dir, parent) ? parent
                       : dir[0] != '\0'                                       ? dir
                                                                              : "/");
}

static int find_programs(struct process_target *p, const struct infra_process_options *o,
                         struct trk_err *err)
{
    p->wrapper = realpath(o->wrapper, NULL);
    if (p->wrapper == NULL) {
        return trk_err_errno(err, errno, "job wrapper %s", o->wrapper);
    }
    p->wrapper_dir = find_wrapper_dir(p);
    if (o->launcher != NULL) {
        p->launcher = trk_xstrdup(o->launcher);
    } else {
        char exe[4096];
        ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
        exe[n > 0 ? n : 0] = '\0';
        char *cut = strrchr(exe, '/');
        p->launcher = trk_xasprintf("%.*s/job_launch", cut != NULL ? (int)(cut - exe) : 0, exe);
    }
    return 0;
}

/* Without a sandbox the other user has to reach the wrapper where it lies. */
static int choose_plain_user(struct process_target *p, struct trk_err *err)
{
    struct trk_proc_options o;
    trk_proc_options_init(&o);
    const char *const argv[] = {"/usr/bin/test", "-x", p->wrapper, NULL};
    int code = -1;
    o.argv = argv;
    o.change_user = true;
    o.uid = p->uid;
    o.gid = p->gid;
    if (p->change_user &&
        (trk_proc_run(&o, NULL, 0, 5000, NULL, NULL, NULL, NULL, &code, err) < 0 || code != 0)) {
        p->change_user = false;
        trk_log_warn("jobs run as lifecycle's own user: process_job_user cannot reach the wrapper",
                     "wrapper", p->wrapper, NULL);
    }
    return 0;
}

/* What runs goes on running in any case. */
static int choose_sandbox(struct process_target *p, struct trk_err *err)
{
    struct trk_err why = {0};
    if (!p->is_sandboxed) {
        trk_log_warn("jobs run without a sandbox and without limits of disk, open files and output,"
                     " and reach every port of this host: PROCESS_SANDBOX is off",
                     NULL);
        return choose_plain_user(p, err);
    }
    if (process_check_sandbox(p, &why) < 0) {
        trk_log_error(why.text, NULL);
    }
    return 0;
}

static int make_folders(const struct process_target *p, struct trk_err *err)
{
    if (trk_mkdir_p(p->jobs_dir, 0755, err) < 0 || trk_mkdir_p(p->layers_dir, 0755, err) < 0 ||
        trk_mkdir_p(p->locks_dir, 0700, err) < 0) {
        return trk_err_wrap(err, "making the folders of the process target");
    }
    return 0;
}

int infra_process_new(const struct infra_process_options *o, const struct infra_target **ret,
                      struct trk_err *err)
{
    struct trk_err own = {0};
    err = err != NULL ? err : &own;
    struct process_target *p = trk_xcalloc(1, sizeof(*p));
    process_paths_init(p, o->state_dir);
    p->image_store_url = trk_xstrdup(o->image_store_url);
    p->token = trk_xstrdup(o->token);
    p->secret_key = trk_xstrdup(o->secret_key);
    p->is_sandboxed = o->is_sandboxed;
    p->limits = o->limits;
    p->target = (struct infra_target){
        .name = "process",
        .state = p,
        .apply = process_apply,
        .stop = process_stop,
        .remove = process_remove,
        .list = process_list,
        .watch = process_tell,
        .logs = process_logs,
    };
    int rc = make_folders(p, err);
    if (rc == 0) {
        rc = infra_instance_of_folder("process", o->state_dir, &p->instance, err);
        p->target.instance = p->instance;
    }
    if (rc == 0) {
        rc = find_programs(p, o, err);
    }
    if (rc == 0) {
        rc = find_user(p, o->job_user, err);
    }
    if (rc == 0) {
        rc = choose_sandbox(p, err);
    }
    if (rc == 0) {
        trk_cgroups_detect(&p->cgroups);
        if (p->cgroups.version == 0) {
            trk_log_warn(
                "limits of memory, CPU and processes of jobs are not enforced: no writable control "
                "groups",
                NULL);
        }
        p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        p->is_watching = pthread_create(&p->watcher, NULL, process_watch, p) == 0;
        rc = p->is_watching ? 0 : trk_err_set(err, TRK_INTERNAL, "starting the watcher failed");
    }
    if (rc < 0) {
        infra_process_free(&p->target);
        return trk_err_wrap(err, "infrastructure target process");
    }
    *ret = &p->target;
    return 0;
}

void infra_process_free(const struct infra_target *target)
{
    if (target == NULL) {
        return;
    }
    struct process_target *p = target->state;
    if (p->is_watching) {
        atomic_store(&p->stop, true);
        process_wake(p);
        pthread_join(p->watcher, NULL);
    }
    for (size_t i = 0; i < p->client_count; i++) {
        trk_http_client_free(p->clients[i]);
    }
    process_paths_fini(p);
    free(p);
}

/* -- stop-jobs -- */

static void stop_one(struct process_target *p, const char *id, bool is_last_word, int64_t grace_ms,
                     size_t *count)
{
    trk_autoclose int lock = -1;
    json_auto_t *doc = NULL;
    struct trk_err err = {0};
    int rc = workload_lock_known(p, id, &lock, &doc, NULL);
    if (rc == TRK_INVALID) { /* its processes carry its mark */
        doc = json_object();
        rc = workload_lock(p, id, &lock, NULL);
    }
    if (rc < 0) {
        return;
    }
    if (!is_last_word) {
        struct trk_proc proc;
        if (workload_process(p, doc, &proc)) {
            (*count)++;
            trk_proc_fini(&proc);
        }
        workload_set_text(doc, "state", STATE_STOPPING);
        workload_set_int(doc, "kill_at_ms", trk_wall_ms() + grace_ms);
        may_fail(workload_save(p, id, doc, &err));
        process_terminate(p, doc);
    } else if (process_kill_all(p, id, doc, &err) == 0) {
        workload_set_text(doc, "state", STATE_STOPPED);
        workload_set_text(doc, "reason", "stopped by the operator");
        workload_set_int(doc, "pid", 0);
        may_fail(workload_save(p, id, doc, &err));
    }
    if (err.code < 0) {
        trk_log_warn("stopping a job", "generation", id, "error", err.text, NULL);
    }
}

static bool is_any_alive(const struct process_target *p, char (*ids)[40], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        json_auto_t *doc = NULL;
        struct trk_proc proc;
        if (workload_load(p, ids[i], &doc, NULL) == 0 && workload_process(p, doc, &proc)) {
            trk_proc_fini(&proc);
            return true;
        }
    }
    return false;
}

int infra_process_stop_all(const char *state_dir, int64_t grace_ms, size_t *ret_count,
                           struct trk_err *err)
{
    struct trk_err own = {0};
    err = err != NULL ? err : &own;
    struct process_target p = {0};
    process_paths_init(&p, state_dir);
    trk_autofree char(*ids)[40] = NULL;
    size_t count = 0, stopped = 0;
    int rc = trk_path_exists(p.jobs_dir) ? workload_ids(&p, &ids, &count, err) : 0;
    if (rc == 0) {
        trk_cgroups_detect(&p.cgroups);
        for (size_t i = 0; i < count; i++) {
            stop_one(&p, ids[i], false, grace_ms, &stopped);
        }
        int64_t deadline = trk_now_ns() + grace_ms * TRK_NS_PER_MS;
        while (trk_now_ns() < deadline && is_any_alive(&p, ids, count)) {
            trk_sleep_ms(10);
        }
        for (size_t i = 0; i < count; i++) {
            stop_one(&p, ids[i], true, 0, &stopped);
        }
        *ret_count = stopped;
    }
    process_paths_fini(&p);
    return rc;
}
