/*
 * internal.h - what the files of the process target share; nobody else includes it.
 *
 * A workload document (workload.json): generation_id, job_name, job_version, image_name,
 * image_digest, state, pid, start_ticks, boot_id, address, port, sandbox, restarts, failures,
 * reason, next_start_ms, started_ms, kill_at_ms, argv, packages, env (sealed), memory_max_bytes,
 * cpu_max_milli, network, code_bytes,
 * is_full, oom_kills, oom_ms.
 */
#ifndef LIFECYCLE_INFRA_PROCESS_INTERNAL_H
#define LIFECYCLE_INFRA_PROCESS_INTERNAL_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "libtrack/base/args.h"
#include "libtrack/base/proc.h"
#include "libtrack/http/http_client.h"
#include "libtrack/sandbox/cgroup.h"
#include "lifecycle/infra/process/process.h"

#define STATE_PREPARING "preparing" /* folder made, nothing started yet */
#define STATE_RUNNING   "running"
#define STATE_BACKOFF   "backoff"  /* ended by itself, started again at next_start_ms */
#define STATE_STOPPING  "stopping" /* asked to end, killed at kill_at_ms */
#define STATE_STOPPED   "stopped"

#define JOB_CODE_DIR     "/src/job" /* where a job finds itself in the sandbox, as in its image */
#define JOB_PACKAGES_DIR "/src/packages"
#define JOB_MARK         "RACETRACK_GENERATION"

struct process_target {
    struct infra_target target;
    char *instance, *state_dir, *jobs_dir, *layers_dir, *locks_dir;
    char *wrapper, *wrapper_dir, *launcher, *image_store_url, *token, *secret_key;
    bool is_sandboxed, change_user;
    bool sandbox_works; /* as far as was found out, and in which form; under the mutex */
    size_t form;
    struct infra_process_limits limits;
    uid_t uid;
    gid_t gid;
    char boot_id[64];
    struct trk_cgroups cgroups;
    struct trk_http_client *clients[8]; /* idle ones, under the mutex */
    size_t client_count;
    pthread_mutex_t mutex;
    pthread_t watcher;
    bool is_watching;
    atomic_bool stop;
    void (*changed)(void *ctx, const char *generation_id); /* whom to tell; under the mutex */
    void *changed_ctx;
    int wake_fd;
};

/* For what is tried and may fail: gcc heeds no cast to void on must-check functions. */
static inline void may_fail(int code)
{
    (void)code;
}

/* workload.c */
bool workload_id_is_valid(const char *id);
char *workload_path(const struct process_target *p, const char *id, const char *file);
/* One at a time per generation, across processes. *ret_fd: close it to unlock. */
int workload_lock(const struct process_target *p, const char *id, int *ret_fd,
                  struct trk_err *err) TRK_MUST_CHECK;
void workload_lock_forget(const struct process_target *p, const char *id); /* while holding it */
/* TRK_NOT_FOUND: no such workload; TRK_INVALID: its document is damaged. */
int workload_load(const struct process_target *p, const char *id, json_t **ret,
                  struct trk_err *err) TRK_MUST_CHECK;
/* Both at once. TRK_NOT_FOUND: there is no such workload (any more), and no lock file is left;
 * TRK_INVALID: its document is damaged. */
int workload_lock_known(const struct process_target *p, const char *id, int *ret_fd, json_t **ret,
                        struct trk_err *err) TRK_MUST_CHECK;
int workload_save(const struct process_target *p, const char *id, const json_t *doc,
                  struct trk_err *err) TRK_MUST_CHECK;
/* Ids of all generations with a folder; *ret owned array of strings of 40. */
int workload_ids(const struct process_target *p, char (**ret)[40], size_t *ret_count,
                 struct trk_err *err) TRK_MUST_CHECK;
const char *workload_text(const json_t *doc, const char *key);
int64_t workload_int(const json_t *doc, const char *key);
bool workload_is(const json_t *doc, const char *state);
void workload_set_text(json_t *doc, const char *key, const char *value);
void workload_set_int(json_t *doc, const char *key, int64_t value);
/* The tracked process when it is alive. */
bool workload_process(const struct process_target *p, const json_t *doc, struct trk_proc *ret);

/* launch.c: starts the process of a prepared workload, the identity saved first. Under the lock. */
int process_launch(struct process_target *p, const char *id, json_t *doc,
                   struct trk_err *err) TRK_MUST_CHECK;
int process_memory_file(const char *name, const void *bytes, size_t len,
                        struct trk_err *err) TRK_MUST_CHECK; /* a descriptor at its beginning */

/* env.c: the job's environment as "K=V\0…" bytes. `gateway`, when the job gets a network of its
 * own: where the gateway is outside and what port it has within; NULL otherwise. */
struct job_gateway {
    char address[64]; /* numeric host:port; "": the job knows none */
    int port;
};
int process_env_open(const struct process_target *p, const char *id, const json_t *doc,
                     struct job_gateway *gateway, struct trk_buf *buf,
                     struct trk_err *err) TRK_MUST_CHECK;

/* confine.c. Descriptors of the child, beside its standard ones: */
enum { LISTEN_FD = 3, ENV_FD, STATUS_FD, RESOLVER_FD, USERNS_FD };
struct confinement {
    size_t form;   /* of the sandbox */
    int userns_fd; /* the caller closes it; -1: none */
    uint64_t tmp_bytes;
    bool is_outside;
    struct job_gateway gateway;
};
/* Does the sandbox work here, or was it not asked for? TRK_INVALID with the reason when not. Once
 * it works it is taken to work; until then it is tried every time. */
int process_check_sandbox(struct process_target *p, struct trk_err *err) TRK_MUST_CHECK;
/* What cannot be given is refused with the reason. */
int confine_prepare(struct process_target *p, const json_t *doc, struct confinement *ret,
                    struct trk_err *err) TRK_MUST_CHECK;
/* bubblewrap's argv; then come the job's own folders, the launcher's options, the program. */
void confine_begin(const struct process_target *p, const struct confinement *c,
                   struct trk_args *args);
void confine_launcher(const struct process_target *p, const struct confinement *c,
                      struct trk_args *args);

/* image.c: fetches and unpacks the image's layers into the generation's folder; sets argv and
 * packages of the document. */
int process_image_fetch(struct process_target *p, const struct infra_generation_spec *spec,
                        json_t *doc, struct trk_err *err) TRK_MUST_CHECK;
void process_layers_collect(struct process_target *p); /* removes unused dependency layers */

/* kill.c */
/* The wrapper itself is asked to end. */
void process_terminate(const struct process_target *p, const json_t *doc);
/* Ends everything of the generation; TRK_TIMEOUT when something does not die. */
int process_kill_all(const struct process_target *p, const char *id, const json_t *doc,
                     struct trk_err *err) TRK_MUST_CHECK;

/* watch.c */
/* Notes the end of a process that should run: reason and back-off. Under the lock. */
void process_note_exit(struct process_target *p, const char *id, json_t *doc);
void *process_watch(void *target);
void process_wake(struct process_target *p);
/* A workload changed by itself: tells whoever watches. */
void process_changed(struct process_target *p, const char *id);
void process_tell(const struct infra_target *t,
                  void (*changed)(void *ctx, const char *generation_id), void *ctx);

/* replicas.c: the operations on generations. The id of a workload is that of its generation, with
 * ".1", … for all replicas but the first. */
int workload_split_id(const char *id, char ret_generation[40]); /* the replica's number */
int process_apply(const struct infra_target *t, const struct infra_generation_spec *spec,
                  struct infra_observation *ret, struct trk_err *err) TRK_MUST_CHECK;
int process_stop(const struct infra_target *t, const char *generation_id, int64_t grace_ms,
                 struct trk_err *err) TRK_MUST_CHECK;
int process_remove(const struct infra_target *t, const char *generation_id,
                   struct trk_err *err) TRK_MUST_CHECK;
int process_list(const struct infra_target *t, const char *generation_id,
                 struct infra_observation **ret, size_t *ret_count,
                 struct trk_err *err) TRK_MUST_CHECK;
int process_logs(const struct infra_target *t, const char *generation_id, size_t tail,
                 struct trk_buf *out, struct trk_err *err) TRK_MUST_CHECK;

/* target.c: the same on one workload; spec->generation_id is its id. */
int process_apply_one(struct process_target *p, const struct infra_generation_spec *spec,
                      struct infra_observation *ret, struct trk_err *err) TRK_MUST_CHECK;
int process_stop_one(struct process_target *p, const char *id, int64_t grace_ms,
                     struct trk_err *err) TRK_MUST_CHECK;
int process_remove_one(struct process_target *p, const char *id,
                       struct trk_err *err) TRK_MUST_CHECK;
int process_observe_one(struct process_target *p, const char *id, struct infra_observation *ret,
                        struct trk_err *err) TRK_MUST_CHECK;
int process_logs_one(const struct process_target *p, const char *id, size_t tail,
                     struct trk_buf *out, struct trk_err *err) TRK_MUST_CHECK;

/* target.c: for stop_all, a target that only knows its folders. */
void process_paths_init(struct process_target *p, const char *state_dir);
void process_paths_fini(struct process_target *p);

#endif
