/*
 * The deployment queue and the supervisor against a real Postgres. The lifecycle that works is this
 * very program in a process of its own (`… work ROOT CONNINFO URL`), so that it can be killed with
 * SIGKILL at any step; image_builder and the jobs are a small Python server, the infrastructure
 * target a folder of files. What happened is read from the files that both append to.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/proc.h"
#include "libtrack/config/profile.h"
#include "libtrack/data/json.h"
#include "lifecycle/config.h"
#include "lifecycle/deploy/context.h"
#include "lifecycle/deploy/deploy.h"
#include "lifecycle/domain/permission.h"
#include "lifecycle/domain/status.h"
#include "lifecycle/infra/target.h"
#include "lifecycle/lifecycle.h"
#include "lifecycle/store/deployment.h"
#include "lifecycle/store/generation.h"
#include "lifecycle/store/job.h"
#include "lifecycle/store/migrations.h"
#include "lifecycle/store/queue.h"
#include "lifecycle/store/subject.h"
#include "lifecycle/supervisor/internal.h"
#include "lifecycle/supervisor/supervisor.h"
#include "tests/unit/support/pg_cluster.h"

#define KEY TRK_DEV_AUTH_KEY

static const char server_script[] =
    "import http.server,sys,os,json,hashlib\n"
    "root=sys.argv[1]\n"
    "def has(n): return os.path.exists(root+'/'+n)\n"
    "def add(n,t):\n"
    "    with open(root+'/'+n,'a') as f: f.write(t+'\\n')\n"
    "def kill(n):\n"
    "    try: os.rename(root+'/kill-'+n, root+'/killed-'+n)\n"
    "    except FileNotFoundError: return\n"
    "    os.kill(int(open(root+'/victim').read()),9)\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    protocol_version='HTTP/1.1'\n"
    "    def log_message(self,*a): pass\n"
    "    def send(self,status,text,kind='application/json'):\n"
    "        b=text.encode()\n"
    "        try:\n"
    "            self.send_response(status); self.send_header('Content-Type',kind)\n"
    "            self.send_header('Content-Length',str(len(b))); self.end_headers(); "
    "self.wfile.write(b)\n"
    "        except OSError: pass\n"
    "    def do_POST(self):\n"
    "        body=json.loads(self.rfile.read(int(self.headers['Content-Length'])))\n"
    "        m=body['manifest']; add('builds',m['name']+' '+m.get('version','0.0.1'))\n"
    "        kill('build')\n"
    "        if has('builder-away'): self.send(503,json.dumps(dict(error='it starts'))); return\n"
    "        if has('break-build'):\n"
    "            os.unlink(root+'/break-build'); self.close_connection=True; return\n"
    "        if has('image-gone'): os.unlink(root+'/image-gone')\n"
    "        d=body['source_digest'] or 'sha256:'+'0'*64\n"
    "        "
    "r=dict(image_names=[],image_name='127.0.0.1:7201/racetrack/job-entrypoint/"
    "'+m['name']+':'+body['tag'],\n"
    "          image_digest=d,logs='built it\\n',error=None,error_code=None,warnings=None)\n"
    "        if has('stop-build'):\n"
    "            os.unlink(root+'/stop-build'); r.update(error='the build was "
    "cancelled',error_code='cancelled')\n"
    "        if has('fail-build'): r.update(error='no such file: adder.py',error_code='invalid')\n"
    "        self.send(200,'event: keepalive_heartbeat\\ndata: {}\\n\\nevent: result\\ndata: "
    "'+json.dumps({'result':r})+'\\n\\n','text/event-stream')\n"
    "    def do_PUT(self):\n"
    "        b=self.rfile.read(int(self.headers['Content-Length']))\n"
    "        for n,status in (('store-away',503),('store-full',507)):\n" /* once each */
    "            if has(n): os.unlink(root+'/'+n); return self.send(status,'{}')\n"
    "        d='sha256:'+hashlib.sha256(b).hexdigest()\n"
    "        self.send(201 if self.path=='/api/v1/sources/'+d else 400,'')\n"
    "    def do_GET(self):\n"
    "        n=self.path[1:]\n"
    "        kill(n)\n"
    "        add('looks',n+' '+self.headers.get('Connection',''))\n"
    "        ts=int(open(root+'/timestamp').read()) if has('timestamp') else 0\n"
    "        if n=='live':\n"
    "            if has('broken'): "
    "self.send(500,json.dumps(dict(live=False,deployment_timestamp=ts,error='model.bin is "
    "missing\\nTraceback: x')))\n"
    "            else: self.send(200,json.dumps(dict(live=True,deployment_timestamp=ts)))\n"
    "        elif n=='ready':\n"
    "            if has('arm-observe'): os.rename(root+'/arm-observe',root+'/kill-observe')\n"
    "            ok=not has('unready'); "
    "self.send(200 if ok else 500,json.dumps(dict(ready=ok)))\n"
    "        else: self.send(404,'{}')\n"
    "s=http.server.ThreadingHTTPServer(('127.0.0.1',0),H)\n"
    "print(s.server_address[1],flush=True)\n"
    "s.serve_forever()\n";

/* -- files -- */

static char root[2048], url[64];

static char *path_of(const char *name)
{
    return trk_xasprintf("%s/%s", root, name);
}

static void touch(const char *name)
{
    trk_autofree char *path = path_of(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        abort();
    }
    (void)close(fd);
}

static bool exists(const char *name)
{
    trk_autofree char *path = path_of(name);
    return trk_path_exists(path);
}

static void drop(const char *name)
{
    trk_autofree char *path = path_of(name);
    (void)unlink(path);
}

static void append(const char *name, const char *line)
{
    trk_autofree char *path = path_of(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    dprintf(fd, "%s\n", line);
    (void)close(fd);
}

/* How many lines contain `part`. */
static int count_lines(const char *name, const char *part)
{
    trk_autofree char *path = path_of(name);
    trk_autofree char *text = NULL;
    size_t len;
    int count = 0;
    if (trk_file_read(path, 1 << 20, &text, &len, NULL) < 0) {
        return 0;
    }
    for (char *line = text; *line != '\0';) {
        char *end = strchrnul(line, '\n');
        count += memmem(line, (size_t)(end - line), part, strlen(part)) != NULL;
        line = *end == '\n' ? end + 1 : end;
    }
    return count;
}

/* -- the target made of files -- */

static const char *target_folder = "target"; /* another instance has another */

static void kill_point(const char *name)
{
    trk_autofree char *from = trk_xasprintf("%s/kill-%s", root, name);
    trk_autofree char *to = trk_xasprintf("%s/killed-%s", root, name);
    if (rename(from, to) == 0) {
        (void)raise(SIGKILL);
    }
}

/* A replica is a file: "ID" the first, "ID+1" the second. */
static void fill_replica(const char *name, struct infra_observation *ret)
{
    memset(ret, 0, sizeof(*ret));
    size_t len = strcspn(name, "+");
    ret->replica = name[len] == '+' ? atoi(name + len + 1) : 0;
    trk_autofree char *stopped = trk_xasprintf("%s/%s.stopped", target_folder, name);
    trk_autofree char *crashed = trk_xasprintf("crashed+%d", ret->replica);
    bool is_crashed = exists("crashed") || exists(crashed);
    trk_autofree char *restarted = trk_xasprintf("restarted+%d", ret->replica);
    ret->restarts = exists(restarted);
    snprintf(ret->generation_id, sizeof(ret->generation_id), "%.*s", (int)len, name);
    snprintf(ret->address, sizeof(ret->address), "%s", url + strlen("http://"));
    if (exists("moved") || ret->replica == 1) {
        snprintf(ret->address, sizeof(ret->address), "localhost%s", strrchr(url, ':'));
    }
    ret->state = exists(stopped) ? INFRA_GONE : is_crashed ? INFRA_BACKOFF : INFRA_RUNNING;
    snprintf(ret->reason, sizeof(ret->reason), "%s", is_crashed ? "exited with status 9" : "");
}

/* Waits while the test says so. */
static void hold_point(void)
{
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    while (exists("hold") && trk_now_ns() < deadline) {
        touch("held");
        trk_sleep_ms(1);
    }
}

static int fake_apply(const struct infra_target *t, const struct infra_generation_spec *spec,
                      struct infra_observation *ret, struct trk_err *err)
{
    kill_point("apply-before");
    hold_point();
    trk_autofree char *line = trk_xasprintf("%s %s %s", spec->job_name, spec->job_version,
                                            spec->generation_id);
    if (exists("pulls-fail")) {
        return trk_err_set(err, TRK_UNAVAILABLE, "the image store cannot be reached");
    }
    if (exists("image-gone") || exists("image-gone-for-good")) {
        append("refused-applies", line);
        return trk_err_set(err, TRK_GONE, "the image store does not have it");
    }
    for (int k = 0; k < spec->replicas; k++) {
        trk_autofree char *file = trk_xasprintf(k > 0 ? "%s/%s+%d" : "%s/%s", target_folder,
                                                spec->generation_id, k);
        if (exists(file)) {
            continue;
        }
        char timestamp[32];
        snprintf(timestamp, sizeof(timestamp), "%lld", (long long)spec->deployment_timestamp);
        drop("timestamp");
        append("timestamp", timestamp);
        append("applies", line);
        for (const char *const *entry = spec->env; *entry != NULL; entry++) {
            append("env", *entry);
        }
        for (const char *const *entry = spec->secret_env; *entry != NULL; entry++) {
            append("env", *entry);
            append("secret-env", *entry);
        }
        touch(file);
    }
    kill_point("apply-after");
    return infra_observe(t, spec->generation_id, ret, err);
}

/* Each replica of the generation; `fn` gets the name of its file. */
static void each_replica(const char *id, void (*fn)(const char *name))
{
    for (int k = 0; k < 3; k++) {
        trk_autofree char *name = trk_xasprintf(k > 0 ? "%s+%d" : "%s", id, k);
        trk_autofree char *file = trk_xasprintf("%s/%s", target_folder, name);
        if (exists(file)) {
            fn(name);
        }
    }
}

static void stop_replica(const char *name)
{
    trk_autofree char *stopped = trk_xasprintf("%s/%s.stopped", target_folder, name);
    touch(stopped);
}

static int fake_stop(const struct infra_target *t, const char *id, int64_t grace_ms,
                     struct trk_err *err)
{
    (void)t, (void)grace_ms, (void)err;
    each_replica(id, stop_replica);
    return 0;
}

static void remove_replica(const char *name)
{
    trk_autofree char *file = trk_xasprintf("%s/%s", target_folder, name);
    trk_autofree char *stopped = trk_xasprintf("%s/%s.stopped", target_folder, name);
    drop(stopped);
    drop(file);
}

static int fake_remove(const struct infra_target *t, const char *id, struct trk_err *err)
{
    (void)t, (void)err;
    each_replica(id, remove_replica);
    return 0;
}

static int compare_observations(const void *a, const void *b)
{
    const struct infra_observation *left = a, *right = b;
    int order = strcmp(left->generation_id, right->generation_id);
    return order != 0 ? order : left->replica - right->replica;
}

static int fake_list(const struct infra_target *t, const char *id, struct infra_observation **ret,
                     size_t *ret_count, struct trk_err *err)
{
    (void)t;
    if (id != NULL) {
        kill_point("observe");
    }
    if (id == NULL && exists("unlistable")) {
        return trk_err_set(err, TRK_UNAVAILABLE, "the target is away");
    }
    trk_autofree char *path = path_of(target_folder);
    static DIR *dir; /* stays open: this target needs no descriptors to tell what it has */
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    dir = dir != NULL ? dir : opendir(path);
    rewinddir(dir);
    struct infra_observation *list = trk_xcalloc(1, sizeof(*list));
    size_t count = 0;
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (strchr(entry->d_name, '.') == NULL &&
            (id == NULL || strncmp(entry->d_name, id, strlen(id)) == 0)) {
            list = trk_xrealloc(list, (count + 1) * sizeof(*list));
            fill_replica(entry->d_name, &list[count++]);
        }
    }
    pthread_mutex_unlock(&mutex);
    qsort(list, count, sizeof(*list), compare_observations);
    *ret = list;
    *ret_count = count;
    return 0;
}

static void (*watcher)(void *ctx, const char *generation_id);
static void *watcher_ctx;

static void fake_watch(const struct infra_target *t,
                       void (*changed)(void *ctx, const char *generation_id), void *ctx)
{
    (void)t;
    watcher = changed;
    watcher_ctx = ctx;
}

static int fake_logs(const struct infra_target *t, const char *id, size_t tail, struct trk_buf *out,
                     struct trk_err *err)
{
    (void)t, (void)id, (void)tail, (void)err;
    return trk_buf_adds(out, "loading the model\n");
}

static struct infra_target fake = {
    .name = "process",
    .instance = "here",
    .apply = fake_apply,
    .stop = fake_stop,
    .remove = fake_remove,
    .list = fake_list,
    .watch = fake_watch,
    .logs = fake_logs,
};
static const struct infra_target *const targets[] = {&fake};

/* -- a lifecycle -- */

static struct lifecycle_config config;
static struct lifecycle lc;

static char text_empty[] = "", text_limit[] = "8Gi", text_min[] = "256Mi", text_max[] = "1Gi",
            text_cpu[] = "100m", text_pub[] = "http://127.0.0.1:7205/pub", text_tracing[] = "X-T",
            text_caller[] = "X-C", text_none[] = "none", text_key[] = KEY;

static void make_lifecycle(const char *conninfo)
{
    config = (struct lifecycle_config){
        .state_dir = root,
        .profile = text_empty,
        .secret_key = text_key,
        .image_builder_url = url,
        .internal_pub_url = text_pub,
        .infrastructure_target = text_empty,
        .deploy_workers = 3,
        .build_timeout_s = 30,
        .image_builder_wait_s = exists("impatient") ? 0 : 60,
        .timeout_until_job_alive = 10,
        .timeout_until_job_ready = 10,
        .drain_delay_ms = 100,
        .drain_grace_ms = 1000,
        .max_job_memory_limit = text_limit,
        .default_job_memory_min = text_min,
        .default_job_memory_max = text_max,
        .default_job_cpu_min = text_cpu,
        .default_job_cpu_max = text_cpu,
        .default_job_network = text_none,
        .max_job_network = text_none,
        .reconciliation_loop = true,
        .supervisor_interval_ms = 50,
        .health_probe_interval_s = 1,
        .event_retention_s = 3600,
        .retention_interval_s = 600,
        .request_tracing_header = text_tracing,
        .caller_name_header = text_caller,
    };
    lc = (struct lifecycle){
        .config = &config,
        .auth_key = KEY,
        .secret_key = KEY,
        .pg_options = {.conninfo = conninfo, .schema = "racetrack", .size = 8},
        .metrics = trk_metrics_new(),
        .targets = {.list = targets, .count = 1},
        .internal_token = "token",
    };
    lc.pool = trk_pg_pool_new(&lc.pg_options);
    trk_uuid4(lc.instance_id);
}

static void write_victim(void)
{
    trk_autofree char *path = path_of("victim");
    char pid[16];
    int len = snprintf(pid, sizeof(pid), "%d", (int)getpid());
    if (trk_file_write(path, pid, (size_t)len, 0644, NULL) < 0) {
        abort();
    }
}

/* From here on this process is on another host. */
static void be_at(const char *instance)
{
    fake.instance = instance;
    target_folder = strcmp(instance, "here") == 0 ? "target" : instance;
}

/* Works until it is told to stop, or killed. */
static int work_main(char **argv)
{
    struct trk_err err = {0};
    sigset_t signals;
    int sig;
    snprintf(root, sizeof(root), "%s", argv[2]);
    snprintf(url, sizeof(url), "%s", argv[4]);
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (argv[5] != NULL) {
        be_at(argv[5]);
    }
    make_lifecycle(argv[3]);
    write_victim(); /* before it works: whoever kills must find this one */
    if (deploy_start(&lc, &err) < 0 || (exists("supervise") && supervisor_start(&lc, &err) < 0)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    (void)sigwait(&signals, &sig);
    deploy_stop(&lc, 500);
    supervisor_stop(&lc);
    return 0;
}

/* -- fixtures -- */

static struct pg_cluster *cluster;
static struct trk_proc server;
static struct trk_err err;
static void *mem;
static char user_id[40];

#define must(call)                                                                                 \
    do {                                                                                           \
        ck_assert_msg((call) == 0, "%s: %s", #call, err.text);                                     \
    } while (0)

static void start_worker_at(const char *instance, struct trk_proc *ret)
{
    struct trk_proc_options o;
    trk_proc_options_init(&o);
    const char *const argv[] = {"/proc/self/exe", "work", root, pg_cluster_conninfo(cluster), url,
                                instance,         NULL};
    trk_autofree char *log = path_of("worker.log");
    trk_autoclose int log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    o.argv = argv;
    o.stderr_fd = log_fd;
    o.die_with_parent = true;
    must(trk_proc_spawn(&o, ret, &err));
}

static void start_worker(struct trk_proc *ret)
{
    start_worker_at("here", ret);
}

static void stop_worker(struct trk_proc *worker)
{
    int status = -1;
    must(trk_proc_signal(worker, SIGTERM, &err));
    must(trk_proc_wait(worker, 20000, &status, &err));
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "worker ended with %d", status);
    trk_proc_fini(worker);
}

static void query(const char *sql)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    must(trk_pg_acquire(lc.pool, &conn, &err));
    must(trk_pg_query(conn, NULL, &err, sql, ""));
}

/* One value as text; "" for null or no row. Hangs on mem. */
static const char *value(const char *sql, const char *argument)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    must(trk_pg_acquire(lc.pool, &conn, &err));
    must(trk_pg_query(conn, &res, &err, sql, "s", argument));
    const char *text = trk_pg_rows(res) > 0 ? trk_pg_text(res, 0, "v") : NULL;
    return talloc_strdup(mem, text != NULL ? text : "");
}

static void set_up(void)
{
    mem = talloc_new(NULL);
    char uuid[TRK_UUID_SIZE];
    trk_uuid4(uuid);
    snprintf(root, sizeof(root), "%s/%.8s",
             getenv("TEST_TMP") != NULL ? getenv("TEST_TMP") : "/tmp", uuid);
    trk_autofree char *target = path_of("target");
    must(trk_mkdir_p(target, 0755, &err));
    int fds[2];
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    struct trk_proc_options o;
    trk_proc_options_init(&o);
    const char *const argv[] = {"/usr/bin/python3", "-c", server_script, root, NULL};
    o.argv = argv;
    o.stdout_fd = fds[1];
    o.die_with_parent = true;
    must(trk_proc_spawn(&o, &server, &err));
    (void)close(fds[1]);
    char port[16] = "";
    ck_assert_int_gt(read(fds[0], port, sizeof(port) - 1), 0);
    (void)close(fds[0]);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", atoi(port));
    make_lifecycle(pg_cluster_conninfo(cluster));
    query("truncate registry_job, registry_deployment, registry_jobgeneration, registry_trashjob, "
          "registry_jobfamily, auth_user, registry_setting cascade");
    query("delete from registry_auditlogevent");
    snprintf(user_id, sizeof(user_id), "%s", "11111111-1111-4111-8111-111111111111");
    query("insert into auth_user (username, password, is_active) values ('alice', '', true)");
    query("insert into registry_authsubject (id, user_id) select "
          "'11111111-1111-4111-8111-111111111111', id from auth_user where username = 'alice'");
    query("insert into registry_authresourcepermission (auth_subject_id, scope) values "
          "('11111111-1111-4111-8111-111111111111', 'full_access')");
}

static void tear_down(void)
{
    must(trk_proc_signal(&server, SIGKILL, &err));
    must(trk_proc_wait(&server, 10000, NULL, &err));
    trk_pg_pool_free(lc.pool);
    trk_metrics_free(lc.metrics);
    talloc_free(mem);
    must(trk_rm_rf(root, &err));
}

static struct subject alice(void)
{
    return (struct subject){
        .type = TRK_SUBJECT_USER, .id = user_id, .name = "alice", .is_active = true};
}

static json_t *manifest(const char *name, const char *version)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:{s:s}, s:{s:s, s:s}, s:{s:s}}", "name", name,
                     "version", version, "owner_email", "a@example.com", "jobtype",
                     "python3:latest", "git", "remote", "https://example.com/x.git",
                     "jobtype_extra", "entrypoint_path", "adder.py", "entrypoint_class", "Adder",
                     "build_env", "BUILD_ONLY", "x");
}

static int replicas; /* of what is submitted; 0: not said */

static int submit(const char *name, const char *version, const char *code, bool force,
                  char **ret_id)
{
    json_auto_t *m = manifest(name, version);
    if (replicas > 0) {
        (void)json_object_set_new(m, "replicas", json_integer(replicas));
    }
    json_auto_t *secrets = json_pack("{s:{s:s}}", "runtime_env", "MODEL_TOKEN", "s3cret");
    struct subject who = alice();
    context_auto struct context context = CONTEXT_NONE;
    must(context_begin(root, &context, &err));
    must(context_add(&context, code, strlen(code), INT64_MAX, &err));
    context_end(&context);
    struct deploy_request request = {.manifest = m,
                                     .secret_vars = secrets,
                                     .context = &context,
                                     .force = force,
                                     .build_flags = ""};
    return deploy_submit(&lc, &who, &request, ret_id, &err);
}

/* Waits for its end; returns the status (hangs on mem). */
static const char *wait_end(const char *id)
{
    int64_t deadline = trk_now_ns() + 20 * TRK_NS_PER_S;
    const char *status;
    do {
        trk_sleep_ms(2);
        status = value("select status as v from registry_deployment where id = $1", id);
    } while (strcmp(status, DEPLOYMENT_IN_PROGRESS) == 0 && trk_now_ns() < deadline);
    return status;
}

static void expect(const char *sql, const char *argument, const char *wanted)
{
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    const char *seen;
    do {
        trk_sleep_ms(2);
        seen = value(sql, argument);
    } while (strcmp(seen, wanted) != 0 && trk_now_ns() < deadline);
    ck_assert_msg(strcmp(seen, wanted) == 0, "%s: is '%s', not '%s'", sql, seen, wanted);
}
#define ADDRESSES                                                                                  \
    "select string_agg(address, ',' order by replica) as v from registry_jobreplica r join "       \
    "registry_job j on j.generation_id = r.generation_id where j.name = $1"
#define JOB_STATUS "select status as v from registry_job where name = $1"

static void deploy_well(const char *name, const char *version, const char *code, bool force)
{
    trk_autofree char *id = NULL;
    must(submit(name, version, code, force, &id));
    const char *status = wait_end(id);
    ck_assert_msg(strcmp(status, DEPLOYMENT_DONE) == 0, "%s: %s", status,
                  value("select error as v from registry_deployment where id = $1", id));
}

/* -- tests -- */

static const char *const kill_points[] = {"build", "apply-before", "apply-after",
                                          "live",  "ready",        "observe"};

START_TEST(a_killed_lifecycle_loses_and_doubles_nothing)
{
    const char *point = kill_points[_i];
    struct trk_proc worker;
    trk_autofree char *id = NULL;
    trk_autofree char *file = trk_xasprintf("%s%s", _i == 5 ? "arm-" : "kill-", point);
    touch(file);
    start_worker(&worker);
    must(submit("adder", "1.0.0", "code", false, &id));
    int status = 0;
    must(trk_proc_wait(&worker, 30000, &status, &err));
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: not killed: %d", point,
                  status);
    trk_proc_fini(&worker);
    ck_assert_str_eq(value("select status as v from registry_deployment where id = $1", id),
                     DEPLOYMENT_IN_PROGRESS);
    start_worker(&worker);
    const char *end = wait_end(id);
    ck_assert_msg(strcmp(end, DEPLOYMENT_DONE) == 0, "%s: %s %s", point, end,
                  value("select error as v from registry_deployment where id = $1", id));
    stop_worker(&worker);
    ck_assert_int_eq(count_lines("applies", "adder"), 1);
    ck_assert_int_le(count_lines("builds", "adder"), 2);
    ck_assert_str_eq(value(JOB_STATUS, "adder"), JOB_RUNNING);
    ck_assert_str_eq(value("select count(*)::text as v from registry_jobgeneration where job_name "
                           "= $1 and state = 'serving'",
                           "adder"),
                     "1");
    ck_assert_str_eq(value("select count(*)::text as v from registry_jobgeneration where job_name "
                           "= $1",
                           "adder"),
                     "1");
    ck_assert_str_eq(value("select count(*)::text as v from registry_auditlogevent where "
                           "event_type = $1",
                           "job_deployed"),
                     "1");
}
END_TEST

START_TEST(two_lifecycles_do_not_do_a_deployment_twice)
{
    struct trk_proc first, second;
    enum { COUNT = 12 };
    char *ids[COUNT];
    start_worker(&first);
    start_worker(&second);
    for (int i = 0; i < COUNT; i++) {
        trk_autofree char *version = trk_xasprintf("1.0.%d", i);
        must(submit("adder", version, "code", false, &ids[i]));
    }
    for (int i = 0; i < COUNT; i++) {
        /* One timestamp file for all: a job answers with the last one's, so some may be refused;
         * what matters here is that none is worked on twice. */
        (void)wait_end(ids[i]);
        trk_autofree char *name = trk_xasprintf("adder 1.0.%d", i);
        trk_autofree char *exact = trk_xasprintf("adder 1.0.%d ", i);
        ck_assert_msg(count_lines("builds", name) >= 1, "%s was not built", name);
        ck_assert_int_eq(count_lines("applies", exact), 1);
        ck_assert_str_eq(
            value("select attempts::text as v from registry_deployment where id = $1", ids[i]),
            "1");
        free(ids[i]);
    }
    ck_assert_int_eq(count_lines("builds", "adder"), COUNT);
    stop_worker(&first);
    stop_worker(&second);
}
END_TEST

/* Its workload vanishes from the folder of its target. */
static void lose(const char *name, const char *folder)
{
    trk_autofree char *file = trk_xasprintf(
        "%s/%s", folder,
        value("select generation_id as v from registry_job where name = $1", name));
    drop(file);
}

#define GENERATIONS_AT                                                                             \
    "select coalesce(string_agg(state, ' ' order by state), '') as v from registry_jobgeneration " \
    "where target_instance = $1"

START_TEST(who_does_not_reach_a_host_leaves_its_jobs_alone)
{
    struct trk_proc here, there;
    trk_autofree char *id = NULL;
    trk_autofree char *folder = path_of("there");
    must(trk_mkdir_p(folder, 0755, &err));
    touch("supervise");
    start_worker_at("there", &there);
    must(submit("adder", "1.0.0", "code", false, &id)); /* for "here", where nobody works yet */
    be_at("there");
    deploy_well("other", "1.0.0", "code", false);
    ck_assert_str_eq(value("select attempts::text as v from registry_deployment where id = $1", id),
                     "0");
    start_worker_at("here", &here);
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_DONE);
    ck_assert_str_eq(value(GENERATIONS_AT, "here"), "serving");
    ck_assert_str_eq(value(GENERATIONS_AT, "there"), "serving");
    /* Nobody reaches it any more: whoever leads now does not take it for lost. */
    stop_worker(&here);
    const char *mine = value("select generation_id as v from registry_job where name = $1",
                             "adder");
    trk_autofree char *file = trk_xasprintf("target/%s", mine);
    drop(file);
    lose("other", "there"); /* this one is brought back, so rounds have passed */
    expect("select count(*)::text as v from registry_jobstatusevent where job_name = 'other' and "
           "to_status = $1",
           JOB_LOST, "1");
    expect(JOB_STATUS, "other", JOB_RUNNING);
    ck_assert_str_eq(value(JOB_STATUS, "adder"), JOB_RUNNING);
    ck_assert(!exists(file));
    touch(file);
    /* Deployed anew over there: the old one goes when somebody is back who reaches it. */
    deploy_well("adder", "1.0.0", "other code", true);
    ck_assert_str_eq(value(GENERATIONS_AT, "there"), "serving serving");
    ck_assert_str_eq(value(GENERATIONS_AT, "here"), "draining");
    ck_assert(exists(file));
    start_worker_at("here", &here);
    expect(GENERATIONS_AT, "here", "");
    ck_assert(!exists(file));
    stop_worker(&here);
    stop_worker(&there);
    be_at("here");
}
END_TEST

static void wait_for_file(const char *name)
{
    int64_t deadline = trk_now_ns() + 20 * TRK_NS_PER_S;
    while (!exists(name) && trk_now_ns() < deadline) {
        trk_sleep_ms(2);
    }
    ck_assert_msg(exists(name), "no file %s", name);
}

/* A worker stood still while somebody else took its deployment over and failed it. */
START_TEST(what_is_started_too_late_is_taken_back)
{
    struct trk_proc worker;
    trk_autofree char *id = NULL;
    touch("hold");
    start_worker(&worker);
    must(submit("adder", "1.0.0", "code", false, &id));
    wait_for_file("held");
    query("update registry_deployment set status = 'failed', error = 'x', lease_owner = null, "
          "lease_until = null");
    query("delete from registry_job");
    query("delete from registry_jobgeneration");
    drop("hold");
    stop_worker(&worker);
    ck_assert_int_eq(count_lines("applies", "adder"), 1);
    trk_autofree char *path = path_of("target");
    trk_autoclose int fd = open(path, O_RDONLY | O_DIRECTORY);
    ck_assert_int_ge(fd, 0);
    DIR *dir = fdopendir(TRK_STEAL_FD(fd));
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        ck_assert_msg(e->d_name[0] == '.', "%s remains", e->d_name);
    }
    (void)closedir(dir);
}
END_TEST

START_TEST(who_lost_the_lease_changes_nothing)
{
    trk_autofree char *id = NULL;
    struct deployment *d;
    trk_pg_auto struct trk_pg *conn = NULL;
    must(submit("adder", "1.0.0", "code", false, &id));
    must(trk_pg_acquire(lc.pool, &conn, &err));
    must(queue_claim(conn, mem, "first", "here", &d, &err));
    query("update registry_deployment set lease_until = now() - interval '1 s'");
    must(queue_claim(conn, mem, "second", "elsewhere\nhere", &d, &err));
    ck_assert_str_eq(d->id, id);
    struct queue_progress p = {.step = "apply", .phase = "mine"};
    ck_assert_int_eq(queue_advance(conn, "first", id, &p, true, &err), TRK_CONFLICT);
    ck_assert_int_eq(queue_renew(conn, "first", id, &err), TRK_CONFLICT);
    ck_assert_int_eq(queue_finish(conn, "first", id, NULL, NULL, &err), TRK_CONFLICT);
    must(queue_release(conn, "first", id, 0, &err));
    ck_assert_str_eq(value("select step || ' ' || phase || ' ' || status || ' ' || lease_owner as "
                           "v from registry_deployment where id = $1",
                           id),
                     "build queued in_progress second");
    must(queue_advance(conn, "second", id, &p, true, &err));
}
END_TEST

START_TEST(a_lease_that_runs_out_in_one_process_does_not_double_the_work)
{
    struct trk_proc worker;
    trk_autofree char *id = NULL;
    touch("hold");
    start_worker(&worker);
    must(submit("adder", "1.0.0", "code", false, &id));
    wait_for_file("held");
    query("update registry_deployment set lease_until = now() - interval '1 s'");
    expect("select attempts::text as v from registry_deployment where id = $1", id, "2");
    drop("hold");
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_DONE);
    stop_worker(&worker);
    ck_assert_int_eq(count_lines("worker.log", "deployment failed"), 0);
    ck_assert_int_eq(count_lines("worker.log", "deployment interrupted"), 0);
    ck_assert_int_eq(count_lines("worker.log", "claimed again"), 1);
}
END_TEST

START_TEST(a_job_that_cannot_start_is_explained_and_taken_back)
{
    struct trk_proc worker;
    trk_autofree char *id = NULL;
    touch("broken");
    start_worker(&worker);
    must(submit("adder", "1.0.0", "code", false, &id));
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_FAILED);
    const char *error = value("select error as v from registry_deployment where id = $1", id);
    ck_assert_msg(strstr(error, "verifying deployed job: ") == error, "%s", error);
    ck_assert_ptr_nonnull(strstr(error, "model.bin is missing"));
    ck_assert_ptr_nonnull(strstr(error, "Last log lines:\nloading the model"));
    ck_assert_str_eq(value(JOB_STATUS, "adder"), "");
    expect("select count(*)::text as v from registry_jobgeneration where job_name = $1", "adder",
           "0");
    ck_assert_str_eq(value("select count(*)::text as v from registry_auditlogevent where "
                           "event_type = $1",
                           "deployment_failed"),
                     "1");
    /* It was never deployed: the name is free. */
    drop("broken");
    deploy_well("adder", "1.0.0", "code", false);
    stop_worker(&worker);
}
END_TEST

START_TEST(a_failed_redeploy_leaves_the_running_job)
{
    struct trk_proc worker;
    trk_autofree char *id = NULL;
    start_worker(&worker);
    deploy_well("adder", "1.0.0", "code", false);
    const char *before = value("select generation_id as v from registry_job where name = $1",
                               "adder");
    touch("fail-build");
    must(submit("adder", "1.0.0", "other code", true, &id));
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_FAILED);
    ck_assert_str_eq(value("select error as v from registry_deployment where id = $1", id),
                     "building an image: no such file: adder.py");
    ck_assert_str_eq(value("select build_logs as v from registry_deployment where id = $1", id),
                     "built it\n");
    drop("fail-build");
    free(TRK_STEAL(id));
    touch("broken");
    must(submit("adder", "1.0.0", "other code", true, &id));
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_FAILED);
    ck_assert_str_eq(value(JOB_STATUS, "adder"), JOB_RUNNING);
    ck_assert_str_eq(value("select generation_id as v from registry_job where name = $1", "adder"),
                     before);
    expect("select count(*)::text as v from registry_jobgeneration where job_name = $1", "adder",
           "1");
    stop_worker(&worker);
}
END_TEST

START_TEST(the_same_again_ends_unchanged_and_other_code_replaces)
{
    struct trk_proc worker;
    trk_autofree char *id = NULL;
    touch("supervise");
    start_worker(&worker);
    deploy_well("adder", "1.0.0", "code", false);
    ck_assert_int_eq(count_lines("env", "MODEL_TOKEN=s3cret"), 1);
    ck_assert_int_eq(count_lines("secret-env", "MODEL_TOKEN=s3cret"), 1);
    ck_assert_int_eq(count_lines("secret-env", "AUTH_TOKEN=ey"), 1);
    ck_assert_int_eq(count_lines("secret-env", "JOB_"), 1); /* JOB_CALL_SECRET */
    ck_assert_int_eq(count_lines("env", "BUILD_ONLY="), 1);
    ck_assert_int_eq(count_lines("env", "BUILD_ONLY=x"), 0);
    ck_assert_int_eq(count_lines("env", "JOB_VERSION=1.0.0"), 1);
    must(submit("adder", "1.0.0", "code", true, &id));
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_DONE);
    ck_assert_int_eq(count_lines("applies", "adder"), 1);
    const char *warning = value("select warnings as v from registry_deployment where id = $1", id);
    ck_assert_msg(strstr(warning, "unchanged: ") == warning, "%s", warning);
    /* Other code: a new generation; the old one drains and goes. */
    const char *before = value("select generation_id as v from registry_job where name = $1",
                               "adder");
    deploy_well("adder", "1.0.0", "other code", true);
    ck_assert_int_eq(count_lines("applies", "adder"), 2);
    ck_assert_str_ne(value("select generation_id as v from registry_job where name = $1", "adder"),
                     before);
    expect("select count(*)::text as v from registry_jobgeneration where job_name = $1", "adder",
           "1");
    trk_autofree char *old = trk_xasprintf("target/%s", before);
    ck_assert(!exists(old));
    /* A redeploy is always done. */
    struct subject who = alice();
    free(TRK_STEAL(id));
    must(deploy_resubmit(&lc, &who, "redeploy", "adder", "1.0.0", &id, &err));
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_DONE);
    ck_assert_int_eq(count_lines("applies", "adder"), 3);
    ck_assert_int_eq(count_lines("env", "MODEL_TOKEN=s3cret"), 3); /* from the kept secrets */
    free(TRK_STEAL(id));
    must(deploy_resubmit(&lc, &who, "reprovision", "adder", "1.0.0", &id, &err));
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_DONE);
    ck_assert_int_eq(count_lines("builds", "adder"), 4);
    ck_assert_int_eq(count_lines("applies", "adder"), 4);
    stop_worker(&worker);
}
END_TEST

#define PHASE "select split_part(phase, ':', 1) as v from registry_deployment where id = $1"

START_TEST(what_a_step_needs_is_waited_for)
{
    struct trk_proc worker;
    trk_autofree char *id = NULL;
    touch("builder-away");
    touch("pulls-fail");
    start_worker(&worker);
    must(submit("adder", "1.0.0", "code", false, &id));
    expect(PHASE, id, "waiting for image_builder");
    drop("builder-away");
    expect(PHASE, id, "waiting for the image store");
    drop("pulls-fail");
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_DONE);
    ck_assert_int_eq(count_lines("applies", "adder"), 1);
    stop_worker(&worker);
    /* Not for ever. */
    free(TRK_STEAL(id));
    touch("impatient");
    touch("builder-away");
    start_worker(&worker);
    must(submit("adder", "1.0.0", "other code", true, &id));
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_FAILED);
    ck_assert_str_eq(value("select error as v from registry_deployment where id = $1", id),
                     "building an image: image_builder refused (status 503): it starts\n"
                     "image_builder was waited for 0 s (image_builder_wait_s)");
    stop_worker(&worker);
}
END_TEST

START_TEST(a_source_is_in_the_store_before_its_deployment_is_accepted)
{
    char *id = NULL;
    touch("store-full");
    ck_assert_int_eq(submit("adder", "1.0.0", "code", false, &id), TRK_NO_SPACE);
    ck_assert_msg(strstr(err.text, "its disk is full") != NULL, "%s", err.text);
    ck_assert_str_eq(
        value("select count(*)::text as v from registry_deployment where job_name = $1", "adder"),
        "0");
    touch("store-away"); /* for a moment: that is waited for */
    must(submit("adder", "1.0.0", "code", false, &id));
    ck_assert(!exists("store-away"));
    char digest[TRK_DIGEST_SIZE];
    trk_digest("code", 4, digest);
    expect("select source_digest as v from registry_deployment where id = $1", id, digest);
    free(id);
}
END_TEST

START_TEST(a_build_that_broke_off_is_begun_again)
{
    static const char *const how[] = {"break-build", "stop-build"};
    struct trk_proc worker;
    touch(how[_i]);
    start_worker(&worker);
    deploy_well("adder", "1.0.0", "code", false);
    ck_assert_int_eq(count_lines("builds", "adder"), 2);
    stop_worker(&worker);
}
END_TEST

START_TEST(a_failure_that_cannot_be_noted_is_taken_up_at_once)
{
    struct trk_proc worker;
    trk_autofree char *id = NULL;
    query("create function refuse() returns trigger language plpgsql as $$ begin raise exception "
          "'not now'; end $$");
    query("create trigger refuse before update on registry_deployment for each row when "
          "(new.status = 'failed') execute function refuse()");
    touch("fail-build");
    start_worker(&worker);
    must(submit("adder", "1.0.0", "code", false, &id));
    /* Twice by the same process: it cannot have waited for its own lease, which it renews. */
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    while (count_lines("worker.log", "cannot be noted as such") < 2 && trk_now_ns() < deadline) {
        trk_sleep_ms(2);
    }
    query("drop function refuse cascade");
    ck_assert_int_ge(count_lines("worker.log", "cannot be noted as such"), 2);
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_FAILED);
    ck_assert_str_eq(value("select error as v from registry_deployment where id = $1", id),
                     "building an image: no such file: adder.py");
    stop_worker(&worker);
}
END_TEST

START_TEST(a_transaction_that_was_repeated_leaves_nothing_behind)
{
    struct trk_proc worker;
    trk_autofree char *id = NULL;
    query("create sequence attempt");
    query("create function collide() returns trigger language plpgsql as $$ begin if "
          "nextval('attempt') = 1 then raise exception 'x' using errcode = '40001'; end if; return "
          "new; end $$");
    query("create trigger collide before update on registry_deployment for each row when "
          "(new.generation_id is distinct from old.generation_id) execute function collide()");
    touch("image-gone-for-good");
    start_worker(&worker);
    must(submit("adder", "1.0.0", "code", false, &id));
    const char *end = wait_end(id);
    query("drop function collide cascade");
    query("drop sequence attempt");
    ck_assert_str_eq(end, DEPLOYMENT_FAILED);
    ck_assert_int_eq(count_lines("worker.log", "deployment interrupted"), 0);
    stop_worker(&worker);
}
END_TEST

START_TEST(a_replaced_generation_answers_until_its_delay_is_over)
{
    struct trk_proc worker;
    start_worker(&worker);
    deploy_well("adder", "1.0.0", "code", false);
    const char *old = value("select id as v from registry_jobgeneration where job_name = $1",
                            "adder");
    trk_autofree char *stopped = trk_xasprintf("target/%s.stopped", old);
    deploy_well("adder", "1.0.0", "other code", true);
    stop_worker(&worker);
    bool leads = true;
    struct supervisor s = {.lc = &lc,
                           .leads_target = &leads,
                           .mutex = PTHREAD_MUTEX_INITIALIZER,
                           .wake = PTHREAD_COND_INITIALIZER,
                           .orphan_gauge = trk_metrics_gauge(lc.metrics, "orphans", "", NULL)};
    s.health = health_start(&s, 1000, &err);
    config.drain_delay_ms = 3600000;
    for (int i = 0; i < 3; i++) {
        supervisor_reconcile(&s);
        ck_assert_str_eq(value("select state as v from registry_jobgeneration where id = $1", old),
                         "draining");
        ck_assert(!exists(stopped));
    }
    config.drain_delay_ms = 0;
    supervisor_reconcile(&s);
    ck_assert_str_eq(value("select state as v from registry_jobgeneration where id = $1", old),
                     "removing");
    ck_assert(exists(stopped));
    supervisor_reconcile(&s);
    ck_assert_str_eq(value("select state as v from registry_jobgeneration where id = $1", old), "");
    health_stop(s.health);
}
END_TEST

START_TEST(what_may_not_be_is_refused_at_once)
{
    struct trk_proc worker;
    trk_autofree char *id = NULL, *none = NULL;
    must(submit("adder", "1.0.0", "code", false, &id)); /* nobody works: it stays in progress */
    ck_assert_int_eq(submit("adder", "1.0.0", "code", true, &none), TRK_CONFLICT);
    ck_assert_msg(strstr(err.text, id) != NULL, "%s", err.text);
    struct subject who = alice();
    ck_assert_int_eq(
        deploy_delete(&lc,
                      &(struct subject){.type = TRK_SUBJECT_INTERNAL,
                                        .name = "x",
                                        .claims = {.scopes = {"full_access"}, .scope_count = 1}},
                      "adder", "1.0.0", &err),
        TRK_CONFLICT);
    start_worker(&worker);
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_DONE);
    ck_assert_int_eq(submit("adder", "1.0.0", "code", false, &none), TRK_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "is already deployed. Try deploying next version or use "
                                           "--force flag"));
    struct permission permission = {.scope = SCOPE_DELETE_JOB};
    who.permissions = &permission;
    who.permission_count = 1;
    must(deploy_delete(&lc, &who, "adder", "1.0.0", &err));
    ck_assert_str_eq(value(JOB_STATUS, "adder"), "");
    must(deploy_delete(&lc, &who, "adder", "1.0.0", &err)); /* once more is fine */
    ck_assert_str_eq(value("select count(*)::text as v from registry_auditlogevent where "
                           "event_type = $1",
                           "job_deleted"),
                     "1");
    ck_assert_int_eq(submit("adder", "1.0.0", "code", false, &none), TRK_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "has already been deployed and deleted"));
    query("delete from registry_authresourcepermission");
    ck_assert_int_eq(submit("fresh", "1.0.0", "code", false, &none), TRK_FORBIDDEN);
    ck_assert_ptr_nonnull(strstr(err.text, "deploy_new_family"));
    ck_assert_int_eq(submit("adder", "1.0.1", "code", false, &none), TRK_FORBIDDEN);
    ck_assert_ptr_nonnull(strstr(err.text, "deploy_job"));
    query("insert into registry_setting values ('maintenance_mode', 'true')");
    ck_assert_int_eq(submit("adder", "1.0.1", "code", false, &none), TRK_UNAVAILABLE);
    ck_assert_ptr_null(none);
    stop_worker(&worker);
}
END_TEST

START_TEST(wrong_manifests_list_every_fault)
{
    char *id = NULL;
    json_auto_t *m = manifest("adder", "1.0.0");
    (void)json_object_set_new(m, "runtime_env",
                              json_pack("{s:s, s:s}", "AUTH_TOKEN", "x", "A=B", "y"));
    struct subject who = alice();
    struct deploy_request request = {.manifest = m, .build_flags = ""};
    ck_assert_int_eq(deploy_submit(&lc, &who, &request, &id, &err), TRK_SCHEMA);
    ck_assert_msg(strstr(err.text, "AUTH_TOKEN") != NULL && strstr(err.text, "A=B") != NULL, "%s",
                  err.text);
    /* What only this installation and the secrets know. */
    (void)json_object_del(m, "runtime_env");
    (void)json_object_set_new(m, "resources",
                              json_pack("{s:s, s:s}", "memory_max", "9Gi", "cpu_min", "30"));
    json_auto_t *secrets = json_pack("{s:{s:s}}", "runtime_env", "PUB_URL", "x");
    request.secret_vars = secrets;
    (void)json_object_set_new(m, "network", json_string("outside"));
    ck_assert_int_eq(deploy_submit(&lc, &who, &request, &id, &err), TRK_SCHEMA);
    ck_assert_msg(strstr(err.text, "resources.memory_max: must not be more than 8Gi") != NULL &&
                      strstr(err.text, "network: must be none") != NULL &&
                      strstr(err.text, "secret runtime variables.PUB_URL") != NULL,
                  "%s", err.text);
    who.type = TRK_SUBJECT_INTERNAL;
    ck_assert_int_eq(deploy_submit(&lc, &who, &request, &id, &err), TRK_FORBIDDEN);
}
END_TEST

START_TEST(a_deployment_that_kills_its_worker_is_given_up)
{
    struct trk_proc worker;
    trk_autofree char *id = NULL;
    must(submit("adder", "1.0.0", "code", false, &id));
    for (int i = 0; i < 5; i++) {
        touch("kill-build");
        start_worker(&worker);
        must(trk_proc_wait(&worker, 30000, NULL, &err));
        trk_proc_fini(&worker);
    }
    touch("kill-build");
    start_worker(&worker);
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_FAILED);
    const char *error = value("select error as v from registry_deployment where id = $1", id);
    ck_assert_msg(strstr(error, "given up: interrupted 5 times") != NULL, "%s", error);
    stop_worker(&worker);
}
END_TEST

START_TEST(waiting_for_a_change_ends_with_it)
{
    trk_autofree char *id = NULL;
    must(deploy_start(&lc, &err)); /* this process waits; it works as well */
    must(submit("adder", "1.0.0", "code", false, &id));
    const char *phase = "queued";
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    int changes = 0;
    while (trk_now_ns() < deadline) {
        must(deploy_wait_change(&lc, id, DEPLOYMENT_IN_PROGRESS, phase, 5000, &err));
        phase = value("select phase as v from registry_deployment where id = $1", id);
        changes++;
        if (strcmp(value("select status as v from registry_deployment where id = $1", id),
                   DEPLOYMENT_IN_PROGRESS) != 0) {
            break;
        }
    }
    ck_assert_int_ge(changes, 1);
    ck_assert_str_eq(value("select status as v from registry_deployment where id = $1", id),
                     DEPLOYMENT_DONE);
    int64_t start = trk_now_ns(); /* nothing happens any more: an ended one is told at once */
    must(deploy_wait_change(&lc, id, DEPLOYMENT_DONE, "", 20000, &err));
    ck_assert_int_lt(trk_now_ns() - start, 10 * TRK_NS_PER_S);
    ck_assert_int_eq(deploy_wait_change(&lc, "no-such-id", "", "", 10, &err), TRK_NOT_FOUND);
    deploy_stop(&lc, 1000);
    free((void *)lc.deploy); /* a service keeps it until it ends, for late requests */
}
END_TEST

START_TEST(supervisor_follows_crash_loss_and_return)
{
    struct trk_proc worker;
    touch("supervise");
    start_worker(&worker);
    deploy_well("adder", "1.0.0", "code", false);
    trk_autofree char *file = trk_xasprintf(
        "target/%s", value("select generation_id as v from registry_job where name = $1", "adder"));
    touch("crashed");
    expect(JOB_STATUS, "adder", JOB_ERROR);
    ck_assert_str_eq(value("select error as v from registry_job where name = $1", "adder"),
                     "exited with status 9");
    drop("crashed");
    expect(JOB_STATUS, "adder", JOB_RUNNING);
    /* A target that cannot be listed proves nothing. */
    touch("unlistable");
    drop(file);
    int seen = count_lines("worker.log", "cannot be listed");
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    while (count_lines("worker.log", "cannot be listed") < seen + 3 && trk_now_ns() < deadline) {
        trk_sleep_ms(2);
    }
    ck_assert_str_eq(value(JOB_STATUS, "adder"), JOB_RUNNING);
    /* Listed again, without it: lost, and started again. */
    drop("unlistable");
    expect("select count(*)::text as v from registry_jobstatusevent where job_name = 'adder' and "
           "to_status = $1",
           JOB_LOST, "1");
    expect(JOB_STATUS, "adder", JOB_RUNNING);
    ck_assert(exists(file));
    ck_assert_int_eq(count_lines("env", "MODEL_TOKEN=s3cret"), 2);
    /* Another address: the job's row follows, and the gateway is told. */
    touch("moved");
    trk_autofree char *address = trk_xasprintf("localhost%s", strrchr(url, ':'));
    expect(ADDRESSES, "adder", address);
    /* What no record knows is told and left alone. */
    touch("target/00000000-aaaa-4000-8000-000000000000");
    while (count_lines("worker.log", "orphaned workload") < 1 && trk_now_ns() < deadline) {
        trk_sleep_ms(2);
    }
    ck_assert_int_eq(count_lines("worker.log", "orphaned workload"), 1);
    ck_assert(exists("target/00000000-aaaa-4000-8000-000000000000"));
    stop_worker(&worker);
}
END_TEST

static void expect_lines(const char *name, const char *part, int wanted)
{
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    while (count_lines(name, part) < wanted && trk_now_ns() < deadline) {
        trk_sleep_ms(2);
    }
    ck_assert_msg(count_lines(name, part) >= wanted, "not %d times '%s' in %s", wanted, part, name);
}

#define REPLICA_STATES                                                                             \
    "select string_agg(r.state, ' ' order by replica) as v from registry_jobreplica r join "       \
    "registry_job j on j.generation_id = r.generation_id where j.name = $1"

#define SECOND_STATE                                                                               \
    "select r.state as v from registry_jobreplica r join registry_job j on j.generation_id = "     \
    "r.generation_id where j.name = $1 and r.replica = 1"

START_TEST(replicas_serve_together_and_are_revived_alone)
{
    struct trk_proc worker;
    touch("supervise");
    start_worker(&worker);
    replicas = 2;
    deploy_well("adder", "1.0.0", "code", false);
    ck_assert_int_eq(count_lines("applies", "adder"), 2);
    const char *port = strrchr(url, ':');
    trk_autofree char *both = trk_xasprintf("127.0.0.1%s,localhost%s", port, port);
    ck_assert_str_eq(value(ADDRESSES, "adder"), both);
    ck_assert_str_eq(value(REPLICA_STATES, "adder"), "running running");
    /* One ends: the other goes on serving. */
    touch("crashed+1");
    expect(REPLICA_STATES, "adder", "running error");
    ck_assert_str_eq(value(JOB_STATUS, "adder"), JOB_RUNNING);
    drop("crashed+1");
    expect(REPLICA_STATES, "adder", "running running");
    /* One was started again between two looks: it serves when it is ready. */
    touch("unready");
    touch("restarted+1");
    expect(SECOND_STATE, "adder", "waiting");
    drop("unready");
    expect(REPLICA_STATES, "adder", "running running");
    drop("restarted+1");
    expect(REPLICA_STATES, "adder", "running running");
    /* One is gone: it alone comes back. */
    trk_autofree char *second = trk_xasprintf(
        "target/%s+1",
        value("select generation_id as v from registry_job where name = $1", "adder"));
    drop(second);
    expect_lines("applies", "adder", 3);
    expect(REPLICA_STATES, "adder", "running running");
    ck_assert_int_eq(count_lines("applies", "adder"), 3);
    /* All are: so is the job, until they are back. */
    lose("adder", "target");
    drop(second);
    expect("select count(*)::text as v from registry_jobstatusevent where job_name = 'adder' and "
           "to_status = $1",
           JOB_LOST, "1");
    expect(JOB_STATUS, "adder", JOB_RUNNING);
    expect(REPLICA_STATES, "adder", "running running");
    /* A deployment replaces all of them, and may want fewer. */
    replicas = 0;
    deploy_well("adder", "1.0.0", "other code", true);
    ck_assert_str_eq(value(REPLICA_STATES, "adder"), "running");
    expect("select count(*)::text as v from registry_jobgeneration where job_name = $1", "adder",
           "1");
    ck_assert(!exists(second));
    stop_worker(&worker);
}
END_TEST

#define JOB_ERROR_TEXT "select error as v from registry_job where name = $1"
#define REDEPLOYS                                                                                  \
    "select count(*)::text as v from registry_deployment where job_name = $1 and kind = "          \
    "'redeploy'"

/* Waits until the job's error contains the text. */
static void expect_error(const char *name, const char *text)
{
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    while (strstr(value(JOB_ERROR_TEXT, name), text) == NULL && trk_now_ns() < deadline) {
        trk_sleep_ms(2);
    }
    ck_assert_msg(strstr(value(JOB_ERROR_TEXT, name), text) != NULL, "no '%s' in '%s'", text,
                  value(JOB_ERROR_TEXT, name));
}

START_TEST(a_lost_image_is_built_again_once)
{
    struct trk_proc worker;
    touch("supervise");
    start_worker(&worker);
    deploy_well("adder", "1.0.0", "code", false);
    const char *before = value("select generation_id as v from registry_job where name = $1",
                               "adder");
    touch("image-gone"); /* until the next build */
    lose("adder", "target");
    expect("select status as v from registry_deployment where job_name = $1 and kind = 'redeploy'",
           "adder", DEPLOYMENT_DONE);
    expect(JOB_STATUS, "adder", JOB_RUNNING);
    ck_assert_str_eq(value(JOB_ERROR_TEXT, "adder"), "");
    ck_assert_str_ne(value("select generation_id as v from registry_job where name = $1", "adder"),
                     before);
    ck_assert_int_eq(count_lines("builds", "adder"), 2);
    /* That one fails as well: it is not tried again, and a person is told what to do. */
    touch("image-gone-for-good");
    lose("adder", "target");
    expect_error("adder", "its image is gone from the image store, and building it again has "
                          "failed: creating job resource: ");
    expect_error("adder", "Deploy it again: racetrack deploy DIR --force, or POST "
                          "/api/v1/job/adder/1.0.0/redeploy");
    ck_assert_str_eq(value(JOB_STATUS, "adder"), JOB_LOST);
    int seen = count_lines("refused-applies", "adder");
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    while (count_lines("refused-applies", "adder") <= seen && trk_now_ns() < deadline) {
        trk_sleep_ms(2);
    }
    ck_assert_int_gt(count_lines("refused-applies", "adder"), seen);
    ck_assert_str_eq(value(REDEPLOYS, "adder"), "2");
    /* The image is there again: so is the job. */
    drop("image-gone-for-good");
    expect(JOB_STATUS, "adder", JOB_RUNNING);
    ck_assert_str_eq(value(JOB_ERROR_TEXT, "adder"), "");
    stop_worker(&worker);
}
END_TEST

START_TEST(the_supervisor_looks_when_a_target_tells_it)
{
    struct trk_proc worker;
    start_worker(&worker);
    deploy_well("adder", "1.0.0", "code", false);
    stop_worker(&worker);
    config.supervisor_interval_ms = 3600000;
    must(supervisor_start(&lc, &err));
    touch("crashed");
    for (int i = 0; i < 2; i++) { /* the first round may be on its way */
        watcher(watcher_ctx, "x");
        expect(JOB_STATUS, "adder", JOB_ERROR);
    }
    ck_assert_ptr_nonnull(watcher);
    supervisor_stop(&lc);
    ck_assert_ptr_null(watcher);
}
END_TEST

START_TEST(what_was_cloned_is_not_built_again_by_itself)
{
    struct trk_proc worker;
    touch("supervise");
    start_worker(&worker);
    deploy_well("adder", "1.0.0", "code", false);
    query("update registry_job set source_digest = null");
    touch("image-gone");
    lose("adder", "target");
    expect_error("adder", "it was built from git, which may have changed since. Deploy it again: ");
    ck_assert_str_eq(value(REDEPLOYS, "adder"), "0");
    stop_worker(&worker);
}
END_TEST

START_TEST(retries_become_rare)
{
    ck_assert_int_eq(supervisor_revival_pause_ms(0, true), 1000);
    ck_assert_int_eq(supervisor_revival_pause_ms(3, true), 8000);
    ck_assert_int_eq(supervisor_revival_pause_ms(9, true), 300000);
    ck_assert_int_eq(supervisor_revival_pause_ms(4000000000, true), 300000);
    ck_assert_int_eq(supervisor_revival_pause_ms(9, false), 60000);
}
END_TEST

#define STATUS_EVENTS                                                                              \
    "select count(*)::text as v from registry_jobstatusevent where job_name = $1 and "             \
    "from_status <> to_status"

START_TEST(a_job_that_is_not_ready_any_more_is_an_error_until_it_is)
{
    struct trk_proc worker;
    touch("supervise");
    start_worker(&worker);
    deploy_well("adder", "1.0.0", "code", false);
    const char *before = value(STATUS_EVENTS, "adder");
    touch("unready");
    touch("broken");
    expect(JOB_STATUS, "adder", JOB_ERROR);
    const char *error = value("select error as v from registry_job where name = $1", "adder");
    ck_assert_ptr_nonnull(strstr(error, "GET /ready answered status 500"));
    ck_assert_ptr_nonnull(strstr(error, "/live answered status 500: model.bin is missing\n"));
    ck_assert_int_eq(atoi(value(STATUS_EVENTS, "adder")), atoi(before) + 1);
    ck_assert_str_eq(value("select reason as v from registry_jobstatusevent where job_name = $1 "
                           "order by id desc limit 1",
                           "adder"),
                     error);
    drop("broken");
    drop("unready");
    expect(JOB_STATUS, "adder", JOB_RUNNING);
    ck_assert_str_eq(value("select error as v from registry_job where name = $1", "adder"), "");
    ck_assert_int_eq(atoi(value(STATUS_EVENTS, "adder")), atoi(before) + 2);
    /* While it is being deployed, the deployment says what it is. */
    trk_autofree char *id = NULL;
    touch("unready");
    int seen = count_lines("looks", "ready close");
    must(submit("adder", "1.0.0", "other code", true, &id));
    expect_lines("looks", "ready close", seen + 4);
    ck_assert_str_eq(value("select status as v from registry_deployment where id = $1", id),
                     DEPLOYMENT_IN_PROGRESS);
    ck_assert_str_eq(value(JOB_STATUS, "adder"), JOB_RUNNING);
    drop("unready");
    ck_assert_str_eq(wait_end(id), DEPLOYMENT_DONE);
    ck_assert_str_eq(value(JOB_STATUS, "adder"), JOB_RUNNING);
    ck_assert_int_eq(atoi(value(STATUS_EVENTS, "adder")), atoi(before) + 2);
    stop_worker(&worker);
}
END_TEST

START_TEST(a_supervisor_without_descriptors_blames_no_job)
{
    struct trk_proc worker;
    struct rlimit before, none;
    touch("supervise");
    start_worker(&worker);
    deploy_well("adder", "1.0.0", "code", false);
    const char *events = value(STATUS_EVENTS, "adder");
    expect_lines("looks", "ready close", 1);
    ck_assert_int_eq(prlimit(worker.pid, RLIMIT_NOFILE, NULL, &before), 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = before.rlim_max};
    ck_assert_int_eq(prlimit(worker.pid, RLIMIT_NOFILE, &none, NULL), 0);
    expect_lines("worker.log", "opens no connections", 3); /* at the 1st, 2nd and 4th look */
    ck_assert_int_eq(prlimit(worker.pid, RLIMIT_NOFILE, &before, NULL), 0);
    expect_lines("worker.log", "asked for their health again", 1);
    ck_assert_str_eq(value(JOB_STATUS, "adder"), JOB_RUNNING);
    ck_assert_str_eq(value(STATUS_EVENTS, "adder"), events);
    stop_worker(&worker);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "work") == 0) {
        return work_main(argv);
    }
    trk_json_init();
    cluster = pg_cluster_start();
    make_lifecycle(pg_cluster_conninfo(cluster));
    if (migrations_run(lc.pool, NULL, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    trk_pg_pool_free(lc.pool);
    trk_metrics_free(lc.metrics);
    Suite *suite = suite_create("deployment queue");
    TCase *tcase = tcase_create("deployment queue");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_loop_test(tcase, a_killed_lifecycle_loses_and_doubles_nothing, 0,
                        (int)TRK_COUNT(kill_points));
    tcase_add_test(tcase, two_lifecycles_do_not_do_a_deployment_twice);
    tcase_add_test(tcase, who_does_not_reach_a_host_leaves_its_jobs_alone);
    tcase_add_test(tcase, what_is_started_too_late_is_taken_back);
    tcase_add_test(tcase, who_lost_the_lease_changes_nothing);
    tcase_add_test(tcase, a_lease_that_runs_out_in_one_process_does_not_double_the_work);
    tcase_add_test(tcase, a_job_that_cannot_start_is_explained_and_taken_back);
    tcase_add_test(tcase, a_failed_redeploy_leaves_the_running_job);
    tcase_add_test(tcase, the_same_again_ends_unchanged_and_other_code_replaces);
    tcase_add_test(tcase, what_a_step_needs_is_waited_for);
    tcase_add_test(tcase, a_source_is_in_the_store_before_its_deployment_is_accepted);
    tcase_add_loop_test(tcase, a_build_that_broke_off_is_begun_again, 0, 2);
    tcase_add_test(tcase, a_failure_that_cannot_be_noted_is_taken_up_at_once);
    tcase_add_test(tcase, a_transaction_that_was_repeated_leaves_nothing_behind);
    tcase_add_test(tcase, a_replaced_generation_answers_until_its_delay_is_over);
    tcase_add_test(tcase, what_may_not_be_is_refused_at_once);
    tcase_add_test(tcase, wrong_manifests_list_every_fault);
    tcase_add_test(tcase, a_deployment_that_kills_its_worker_is_given_up);
    tcase_add_test(tcase, waiting_for_a_change_ends_with_it);
    tcase_add_test(tcase, supervisor_follows_crash_loss_and_return);
    tcase_add_test(tcase, replicas_serve_together_and_are_revived_alone);
    tcase_add_test(tcase, a_job_that_is_not_ready_any_more_is_an_error_until_it_is);
    tcase_add_test(tcase, a_supervisor_without_descriptors_blames_no_job);
    tcase_add_test(tcase, a_lost_image_is_built_again_once);
    tcase_add_test(tcase, the_supervisor_looks_when_a_target_tells_it);
    tcase_add_test(tcase, what_was_cloned_is_not_built_again_by_itself);
    tcase_add_test(tcase, retries_become_rare);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    pg_cluster_stop(cluster);
    return failed > 0 ? 1 : 0;
}
