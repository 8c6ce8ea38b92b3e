/*
 * The process target against a static image store and a stand-in for the wrapper: this very
 * program, run as `… run BEHAVIOUR`.
 */
#include <arpa/inet.h>
#include <check.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/proc.h"
#include "libtrack/base/str.h"
#include "libtrack/oci/oci.h"
#include "lifecycle/infra/process/internal.h"
#include "lifecycle/infra/process/process.h"

#define REPOSITORY "racetrack/job-entrypoint/adder"
#define SECRET     "0123456789abcdef0123456789abcdef"

/* -- the stand-in for the wrapper -- */

static void on_term(int sig)
{
    (void)sig;
    static const char text[] = "asked to end\n";
    ssize_t n = write(1, text, sizeof(text) - 1);
    (void)n;
    _exit(0);
}

static void answer(int fd, const char *body)
{
    dprintf(fd, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s",
            strlen(body), body);
    (void)close(fd);
}

/* What the job sees of the world, for the test to read. */
static void describe(struct trk_buf *out, char **env)
{
    trk_buf_addf(out, "uid=%d\ncwd_writable=%d\n", (int)getuid(), access(".", W_OK) == 0);
    for (char **entry = env; *entry != NULL; entry++) {
        trk_buf_addf(out, "env %s\n", *entry);
    }
    /* Of root's home only the way to this program may be there, when the checkout lies in it. */
    trk_autofree char *self = realpath("/proc/self/exe", NULL);
    DIR *dir = opendir("/root");
    int entries = 0;
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        size_t len = strlen(e->d_name);
        bool is_way = self != NULL && strncmp(self, "/root/", 6) == 0 &&
                      strncmp(self + 6, e->d_name, len) == 0 && self[6 + len] == '/';
        entries += !is_way && strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    const char *state = getenv("STATE_DIR_TO_LOOK_FOR");
    trk_buf_addf(out, "root_entries=%d\nstate_visible=%d\npackages=%d\nleaks=%d\ncpus=%d\n",
                 entries, state != NULL && access(state, F_OK) == 0,
                 access("/src/packages/dep.py", R_OK) == 0,
                 fcntl(5, F_GETFD) >= 0 /* 4 is this very connection */,
                 access("/sys/devices/system/cpu", R_OK | X_OK) == 0);
}

static void leave_daemons(void)
{
    for (int i = 0; i < 2; i++) {
        if (fork() == 0) {
            setsid();
            if (fork() == 0) {
                if (i == 1) {
                    char sleep[] = "/bin/sleep", seconds[] = "777";
                    char *const argv[] = {sleep, seconds, NULL};
                    char *const env[] = {NULL};
                    execve(argv[0], argv, env);
                }
                for (;;) {
                    pause();
                }
            }
            _exit(0);
        }
        wait(NULL);
    }
}

static int wrapper_main(const char *behaviour, char **env)
{
    printf("behaviour %s\n", behaviour);
    fflush(stdout);
    if (strcmp(behaviour, "crash") == 0) {
        printf("something is wrong with the model\n");
        return 3;
    }
    if (strcmp(behaviour, "hog") == 0) {
        for (size_t i = 0; i < 512; i++) {
            memset(trk_xmalloc(1 << 20), 1, 1 << 20);
        }
        return 4;
    }
    signal(SIGTERM, strcmp(behaviour, "deaf") == 0 ? SIG_IGN : on_term);
    if (strcmp(behaviour, "daemons") == 0) {
        leave_daemons();
    }
    if (strcmp(behaviour, "flood") == 0) {
        static const char block[1 << 20];
        (void)fork();
        (void)fork();
        for (;;) {
            ssize_t n = write(1, block, sizeof(block));
            (void)n;
        }
    }
    for (;;) {
        int fd = accept(3, NULL, NULL);
        if (fd < 0) {
            return 5;
        }
        char request[4096];
        ssize_t n = recv(fd, request, sizeof(request), 0);
        if (n > 0 && strncmp(request, "GET /die ", 9) == 0) {
            raise(SIGKILL);
            abort();
        }
        struct trk_buf out;
        trk_buf_init(&out, 100000);
        describe(&out, env);
        answer(fd, out.data);
        trk_buf_fini(&out);
    }
}

/* -- the world of a test -- */

static char root[2048], store_url[64];
static struct trk_proc store;
static const char *image_digest;
static const struct infra_target *target;
static const char *const sandboxes[] = {"bwrap", "none"};

static char *path_of(const char *name)
{
    return trk_xasprintf("%s/%s", root, name);
}

static void put_blob(const void *bytes, size_t len, const char *kind,
                     char ret_digest[TRK_DIGEST_SIZE])
{
    struct trk_err err = {0};
    trk_digest(bytes, len, ret_digest);
    trk_autofree char *path = trk_xasprintf("%s/store/v2/" REPOSITORY "/%s/%s", root, kind,
                                            ret_digest);
    ck_assert_msg(trk_file_write(path, bytes, len, 0644, &err) == 0, "%s", err.text);
}

static void put_layer(const char *folder, const char *file, const char *prefix, const char *role,
                      size_t size, struct trk_oci_descriptor *ret)
{
    struct trk_err err = {0};
    trk_autofree char *dir = path_of(folder);
    trk_autofree char *content = trk_xasprintf("%s/%s", dir, file);
    trk_autofree char *bytes = trk_xmalloc(size + 1);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (char)(i * 2654435761U >> 13);
    }
    ck_assert_int_eq(trk_mkdir_p(dir, 0755, &err), 0);
    ck_assert_int_eq(trk_file_write(content, bytes, size, 0644, &err), 0);
    trk_autofree char *blob = path_of("blob");
    trk_autoclose int dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
    trk_autoclose int out = open(blob, O_RDWR | O_CREAT | O_TRUNC, 0644);
    ck_assert_msg(trk_oci_layer_write(dir_fd, prefix, out, 6, ret, &err) == 0, "%s", err.text);
    snprintf(ret->role, sizeof(ret->role), "%s", role);
    trk_autofree char *written = NULL;
    size_t len;
    char digest[TRK_DIGEST_SIZE];
    ck_assert_int_eq(trk_file_read(blob, 64 << 20, &written, &len, &err), 0);
    put_blob(written, len, "blobs", digest);
    ck_assert_str_eq(digest, ret->digest);
}

/* An image whose entrypoint asks the stand-in for `behaviour`. */
static void put_image(const char *behaviour, size_t code_size)
{
    struct trk_err err = {0};
    struct trk_oci_descriptor layers[2];
    put_layer("deps", "dep.py", "src/packages", "dependencies", 100, &layers[0]);
    put_layer("code", "adder.py", "src/job", "code", code_size, &layers[1]);
    const char *const entrypoint[] = {"job_wrapper", "run", behaviour, NULL};
    const char *const env[] = {"GIT_VERSION=v1.2-3-gabc", "JOB_NAME=of the image", NULL};
    struct trk_oci_image_spec spec = {.layers = layers,
                                      .layer_count = 2,
                                      .env = env,
                                      .entrypoint = entrypoint,
                                      .working_dir = "/src/job",
                                      .exposed_port = "7000/tcp"};
    trk_autofree char *config = NULL, *manifest = NULL;
    ck_assert_msg(trk_oci_image_make(&spec, &config, &manifest, &err) == 0, "%s", err.text);
    static char digest[TRK_DIGEST_SIZE];
    put_blob(config, strlen(config), "blobs", digest);
    put_blob(manifest, strlen(manifest), "manifests", digest);
    image_digest = digest;
}

static void start_target_with(const char *sandbox, const char *launcher_name)
{
    struct trk_err err = {0};
    trk_autofree char *state = path_of("state");
    trk_autofree char *launcher = realpath("/proc/self/exe", NULL);
    trk_autofree char *launcher_path = NULL;
    /* …/tests/unit/lifecycle/test_process_target -> …/bin/job_launch */
    for (int i = 0; i < 4; i++) {
        *strrchr(launcher, '/') = '\0';
    }
    launcher_path = trk_xasprintf("%s/bin/%s", launcher, launcher_name);
    struct infra_process_options options = {.state_dir = state,
                                            .wrapper = "/proc/self/exe",
                                            .launcher = launcher_path,
                                            .is_sandboxed = strcmp(sandbox, "bwrap") == 0,
                                            .job_user = "65534",
                                            .image_store_url = store_url,
                                            .token = "token",
                                            .secret_key = SECRET};
    int rc = infra_process_new(&options, &target, &err);
    ck_assert_msg(rc == 0, "%s", err.text);
}

static void start_target(const char *sandbox)
{
    start_target_with(sandbox, "job_launch");
}

/* A sandbox that does not work on this machine (no user namespaces, say) is no failure of ours. */
static bool can_use(const char *sandbox)
{
    static int works = -1;
    if (strcmp(sandbox, "none") == 0) {
        return true;
    }
    if (works < 0) {
        struct trk_proc_options o;
        trk_proc_options_init(&o);
        const char *const argv[] = {"bwrap", "--unshare-pid", "--ro-bind", "/",    "/", "--proc",
                                    "/proc", "--dev",         "/dev",      "true", NULL};
        o.argv = argv;
        int code = -1;
        works = trk_proc_run(&o, NULL, 0, 10000, NULL, NULL, NULL, NULL, &code, NULL) == 0 &&
                code == 0;
        if (!works) {
            printf("bubblewrap does not work here: its cases are skipped\n");
        }
    }
    return works;
}

/* The id as this process' own: control groups are the machine's, and others may run this, too. */
static const char *own(const char *id)
{
    static char ids[8][40];
    static unsigned next;
    char *ret = ids[next++ % TRK_COUNT(ids)];
    snprintf(ret, sizeof(ids[0]), "%.24s%06x%s", id, (unsigned)getpid() & 0xffffff, id + 30);
    return ret;
}

static struct infra_generation_spec make_spec(const char *id)
{
    static char image[256], state[2100];
    static const char *env[4];
    snprintf(image, sizeof(image), "127.0.0.1:7201/" REPOSITORY ":2026-01-01T000000");
    snprintf(state, sizeof(state), "STATE_DIR_TO_LOOK_FOR=%s/state/jobs", root);
    env[0] = "JOB_NAME=adder";
    env[1] = "MY_SECRET=a b\"c$d";
    env[2] = state;
    env[3] = NULL;
    return (struct infra_generation_spec){.generation_id = id,
                                          .job_name = "adder",
                                          .job_version = "1.0.0",
                                          .image_name = image,
                                          .image_digest = image_digest,
                                          .manifest_yaml = "name: adder",
                                          .env = env,
                                          .replicas = 1};
}

static void apply(const char *id, int64_t memory, struct infra_observation *ret)
{
    struct trk_err err = {0};
    struct infra_generation_spec spec = make_spec(id);
    spec.memory_max_bytes = memory;
    int rc = target->apply(target, &spec, ret, &err);
    ck_assert_msg(rc == 0, "%s", err.text);
}

/* GET `path` of the job; owned text, NULL when there was no answer. */
static char *call(const char *address, const char *path)
{
    struct trk_http_client *client = trk_http_client_new();
    trk_autofree char *url = trk_xasprintf("http://%s%s", address, path);
    struct trk_http_call request = {.url = url, .timeout_ms = 10000};
    struct trk_http_answer answer_;
    char *text = NULL;
    if (trk_http_call(client, &request, &answer_, NULL) == 0) {
        text = trk_xstrdup(answer_.body);
        trk_http_answer_fini(&answer_);
    }
    trk_http_client_free(client);
    return text;
}

static void wait_state(const char *id, enum infra_state state, struct infra_observation *ret)
{
    struct trk_err err = {0};
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    do {
        ck_assert_msg(infra_observe(target, id, ret, &err) == 0, "%s", err.text);
        if (ret->state == state) {
            return;
        }
        trk_sleep_ms(5);
    } while (trk_now_ns() < deadline);
    ck_abort_msg("state is %d, not %d: %s", (int)ret->state, (int)state, ret->reason);
}

/* The generation's output once `text` is in it; owned. */
static char *wait_log(const char *id, const char *text)
{
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    for (;;) {
        struct trk_buf logs;
        trk_buf_init(&logs, 1 << 20);
        ck_assert_int_eq(target->logs(target, id, 0, &logs, NULL), 0);
        if (logs.len > 0 && strstr(logs.data, text) != NULL) {
            return trk_buf_steal(&logs, NULL);
        }
        ck_assert_msg(trk_now_ns() < deadline, "output: %s", logs.len > 0 ? logs.data : "");
        trk_buf_fini(&logs);
        trk_sleep_ms(5);
    }
}

/* How many live processes carry the generation's mark or are the daemons it left. */
static int count_processes(const char *id)
{
    trk_autofree char *mark = trk_xasprintf("%s=%s", JOB_MARK, id);
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    int count = 0;
    while ((entry = readdir(dir)) != NULL) {
        if (isdigit((unsigned char)entry->d_name[0])) {
            trk_autofree char *path = trk_xasprintf("/proc/%s/environ", entry->d_name);
            trk_autofree char *text = NULL;
            size_t len = 0;
            count += trk_file_read(path, 1 << 20, &text, &len, NULL) == 0 &&
                     memmem(text, len, mark, strlen(mark)) != NULL;
        }
    }
    (void)closedir(dir);
    return count;
}

static int count_sleepers(void)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    int count = 0;
    while ((entry = readdir(dir)) != NULL) {
        trk_autofree char *path = trk_xasprintf("/proc/%s/cmdline", entry->d_name);
        trk_autofree char *text = NULL;
        size_t len = 0;
        count += isdigit((unsigned char)entry->d_name[0]) &&
                 trk_file_read(path, 1 << 20, &text, &len, NULL) == 0 && len == 15 &&
                 memcmp(text,
                        "/bin/sleep\0"
                        "777",
                        15) == 0;
    }
    (void)closedir(dir);
    return count;
}

static void remove_generation(const char *id)
{
    struct trk_err err = {0};
    ck_assert_msg(target->remove(target, id, &err) == 0, "%s", err.text);
    struct infra_observation seen;
    ck_assert_int_eq(infra_observe(target, id, &seen, &err), TRK_NOT_FOUND);
    ck_assert_int_eq(count_processes(id), 0);
    trk_autofree char *dir = trk_xasprintf("%s/state/jobs/%s", root, id);
    ck_assert(!trk_path_exists(dir));
    ck_assert_int_eq(target->remove(target, id, &err), 0); /* once more is fine */
}

static void setup(void)
{
    struct trk_err err = {0};
    const char *dir = getenv("TEST_TMP");
    char uuid[TRK_UUID_SIZE];
    trk_uuid4(uuid);
    snprintf(root, sizeof(root), "%s/%.8s", dir != NULL ? dir : "/tmp", uuid);
    trk_autofree char *served = path_of("store");
    trk_autofree char *blobs = trk_xasprintf("%s/v2/" REPOSITORY "/blobs", served);
    trk_autofree char *manifests = trk_xasprintf("%s/v2/" REPOSITORY "/manifests", served);
    ck_assert_int_eq(trk_mkdir_p(blobs, 0755, &err), 0);
    ck_assert_int_eq(trk_mkdir_p(manifests, 0755, &err), 0);
    static const char script[] =
        "import http.server,sys,functools,os\n"
        "h=functools.partial(http.server.SimpleHTTPRequestHandler,directory=sys.argv[1])\n"
        "s=http.server.ThreadingHTTPServer(('127.0.0.1',0),h)\n"
        "print(s.server_address[1],flush=True)\n"
        "s.serve_forever()\n";
    int fds[2];
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    struct trk_proc_options o;
    trk_proc_options_init(&o);
    const char *const argv[] = {"/usr/bin/python3", "-c", script, served, NULL};
    o.argv = argv;
    o.stdout_fd = fds[1];
    o.die_with_parent = true;
    ck_assert_msg(trk_proc_spawn(&o, &store, &err) == 0, "%s", err.text);
    (void)close(fds[1]);
    char port[16] = "";
    ck_assert_int_gt(read(fds[0], port, sizeof(port) - 1), 0);
    (void)close(fds[0]);
    snprintf(store_url, sizeof(store_url), "http://127.0.0.1:%d", atoi(port));
}

static void teardown(void)
{
    struct trk_err err = {0};
    infra_process_free(target);
    target = NULL;
    ck_assert_int_eq(trk_proc_signal(&store, SIGKILL, &err), 0);
    ck_assert_int_eq(trk_proc_wait(&store, 10000, NULL, &err), 0);
    ck_assert_msg(trk_rm_rf(root, &err) == 0, "%s", err.text);
}

/* -- tests -- */

START_TEST(test_job_runs_confined_and_goes_without_a_trace)
{
    if (!can_use(sandboxes[_i])) {
        return;
    }
    bool is_bwrap = _i == 0;
    put_image("serve", 1000);
    start_target(sandboxes[_i]);
    const char *id = own("11111111-0000-4000-8000-000000000001");
    struct infra_observation first, again;
    apply(id, 0, &first);
    ck_assert_int_eq(first.state, INFRA_RUNNING);
    trk_autofree char *text = call(first.address, "/");
    ck_assert_ptr_nonnull(text);
    ck_assert_ptr_nonnull(strstr(text, "env MY_SECRET=a b\"c$d\n"));
    ck_assert_ptr_nonnull(strstr(text, "env HOME=/tmp\n"));
    /* The image's own variables count where nothing else is said. */
    ck_assert_ptr_nonnull(strstr(text, "env GIT_VERSION=v1.2-3-gabc\n"));
    ck_assert_ptr_nonnull(strstr(text, "env JOB_NAME=adder\n"));
    ck_assert_ptr_null(strstr(text, "of the image"));
    ck_assert_ptr_null(strstr(text, "AUTH_KEY"));
    ck_assert_ptr_nonnull(strstr(text, "cwd_writable=1\n"));
    if (is_bwrap) {
        ck_assert_ptr_nonnull(strstr(text, geteuid() == 0 ? "uid=65534\n" : "uid="));
        ck_assert_ptr_nonnull(strstr(text, "root_entries=0\n"));
        ck_assert_ptr_nonnull(strstr(text, "state_visible=0\n"));
        ck_assert_ptr_nonnull(strstr(text, "packages=1\n"));
        ck_assert_ptr_nonnull(strstr(text, "leaks=0\n"));
        ck_assert_ptr_nonnull(strstr(text, "cpus=1\n"));
    }
    apply(id, 0, &again); /* the same again finds it */
    ck_assert_str_eq(again.address, first.address);
    ck_assert_int_eq(again.restarts, 0);

    struct infra_observation *list = NULL;
    size_t count = 0;
    ck_assert_int_eq(target->list(target, NULL, &list, &count, NULL), 0);
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(list[0].generation_id, id);
    ck_assert_str_eq(list[0].job_name, "adder");
    free(list);

    trk_autofree char *logs = wait_log(id, "\n");
    ck_assert_str_eq(logs, "behaviour serve\n");

    /* The environment is at rest only sealed. */
    trk_autofree char *document = trk_xasprintf("%s/state/jobs/%s/workload.json", root, id);
    trk_autofree char *content = NULL;
    size_t len;
    ck_assert_int_eq(trk_file_read(document, 1 << 20, &content, &len, NULL), 0);
    ck_assert_ptr_null(strstr(content, "a b"));
    remove_generation(id);
    ck_assert_ptr_null(call(first.address, "/"));
}
END_TEST

/* In a folder that jobs see. */
START_TEST(test_state_below_opt_is_not_shown)
{
    char former[sizeof(root)], opt[] = "/opt/racetrack-test.XXXXXX";
    struct trk_err err = {0};
    if (!can_use("bwrap") || mkdtemp(opt) == NULL) {
        return; /* root only */
    }
    memcpy(former, root, sizeof(root));
    ck_assert_int_eq(chmod(opt, 0755), 0);
    put_image("serve", 1000);
    snprintf(root, sizeof(root), "%s", opt);
    start_target("bwrap");
    const char *id = own("11111111-0000-4000-8000-000000000002");
    struct infra_observation seen;
    apply(id, 0, &seen);
    trk_autofree char *text = call(seen.address, "/");
    remove_generation(id);
    memcpy(root, former, sizeof(root));
    ck_assert_msg(trk_rm_rf(opt, &err) == 0, "%s", err.text);
    ck_assert_ptr_nonnull(text);
    ck_assert_msg(strstr(text, "state_visible=0\n") != NULL, "%s", text);
}
END_TEST

static size_t list_replicas(const char *id, struct infra_observation **ret)
{
    struct trk_err err = {0};
    size_t count = 0;
    free(*ret);
    *ret = NULL;
    ck_assert_msg(target->list(target, id, ret, &count, &err) == 0, "%s", err.text);
    return count;
}

START_TEST(test_replicas_are_processes_of_their_own)
{
    if (!can_use(sandboxes[_i])) {
        return;
    }
    put_image("serve", 1000);
    start_target(sandboxes[_i]);
    const char *id = "11111111-0000-4000-8000-000000000012";
    struct infra_generation_spec spec = make_spec(id);
    struct infra_observation seen, *list = NULL;
    struct trk_err err = {0};
    spec.replicas = 3;
    ck_assert_msg(target->apply(target, &spec, &seen, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(list_replicas(id, &list), 3);
    char addresses[3][512];
    for (int k = 0; k < 3; k++) {
        ck_assert_int_eq(list[k].replica, k);
        ck_assert_str_eq(list[k].generation_id, id);
        trk_autofree char *text = call(list[k].address, "/");
        ck_assert_ptr_nonnull(text);
        memcpy(addresses[k], list[k].address, sizeof(addresses[k]));
    }
    ck_assert_str_ne(addresses[0], addresses[1]);
    ck_assert_str_ne(addresses[1], addresses[2]);
    /* Fewer, then more: the others are left alone. The first one's end is not theirs. */
    spec.replicas = 2;
    ck_assert_msg(target->apply(target, &spec, &seen, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(list_replicas(id, &list), 2);
    ck_assert_str_eq(list[1].address, addresses[1]);
    trk_autofree char *gone = call(addresses[2], "/");
    ck_assert_ptr_null(gone);
    trk_autofree char *folder = trk_xasprintf("%s/state/jobs/%s.1", root, id);
    ck_assert(trk_path_exists(folder));
    spec.replicas = 1;
    ck_assert_msg(target->apply(target, &spec, &seen, &err) == 0, "%s", err.text);
    ck_assert(!trk_path_exists(folder));
    trk_autofree char *text = call(addresses[0], "/");
    ck_assert_ptr_nonnull(text);
    spec.replicas = 2;
    ck_assert_msg(target->apply(target, &spec, &seen, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(list_replicas(id, &list), 2);
    trk_autofree char *again = call(list[1].address, "/");
    ck_assert_ptr_nonnull(again);
    remove_generation(id);
    ck_assert_uint_eq(list_replicas(id, &list), 0);
    ck_assert(!trk_path_exists(folder));
    free(list);
}
END_TEST

static atomic_int told;

static void note_change(void *ctx, const char *generation_id)
{
    told += strcmp(generation_id, ctx) == 0;
}

START_TEST(test_whoever_watches_is_told)
{
    if (!can_use("none")) {
        return;
    }
    char id[] = "22222222-0000-4000-8000-000000000012";
    put_image("crash", 1000);
    start_target("none");
    struct infra_observation seen;
    target->watch(target, note_change, id);
    apply(id, 0, &seen);
    wait_state(id, INFRA_BACKOFF, &seen);
    int64_t deadline = trk_now_ns() + 20 * TRK_NS_PER_S;
    while (told < 2 && trk_now_ns() < deadline) { /* it ended, and was started again */
        trk_sleep_ms(2);
    }
    ck_assert_int_ge(told, 2);
    target->watch(target, NULL, NULL);
    remove_generation(id);
}
END_TEST

START_TEST(test_crash_is_explained_and_restarted_with_pauses)
{
    if (!can_use(sandboxes[_i])) {
        return;
    }
    put_image("crash", 1000);
    start_target(sandboxes[_i]);
    const char *id = own("22222222-0000-4000-8000-000000000001");
    struct infra_observation seen;
    apply(id, 0, &seen);
    wait_state(id, INFRA_BACKOFF, &seen);
    ck_assert_msg(strstr(seen.reason, "exited with status 3") != NULL, "%s", seen.reason);
    ck_assert_msg(strstr(seen.reason, "something is wrong with the model") != NULL, "%s",
                  seen.reason);
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    while (seen.restarts < 2 && trk_now_ns() < deadline) {
        ck_assert_int_eq(infra_observe(target, id, &seen, NULL), 0);
    }
    ck_assert_int_ge(seen.restarts, 2);
    remove_generation(id);
}
END_TEST

START_TEST(test_killed_job_comes_back_at_its_address)
{
    if (!can_use(sandboxes[_i])) {
        return;
    }
    put_image("serve", 1000);
    start_target(sandboxes[_i]);
    const char *id = own("33333333-0000-4000-8000-000000000001");
    struct infra_observation first, seen;
    apply(id, 0, &first);
    trk_autofree char *before = call(first.address, "/");
    ck_assert_ptr_nonnull(before);
    ck_assert_ptr_null(call(first.address, "/die"));
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    do {
        ck_assert_int_eq(infra_observe(target, id, &seen, NULL), 0);
    } while ((seen.restarts == 0 || seen.state != INFRA_RUNNING) && trk_now_ns() < deadline);
    ck_assert_int_eq(seen.restarts, 1);
    ck_assert_str_eq(seen.address, first.address);
    ck_assert_msg(strstr(seen.reason, "killed by signal 9") != NULL, "%s", seen.reason);
    trk_autofree char *after = call(seen.address, "/");
    ck_assert_ptr_nonnull(after);
    remove_generation(id);
}
END_TEST

START_TEST(test_job_outlives_the_target_and_is_found_again)
{
    if (!can_use(sandboxes[_i])) {
        return;
    }
    put_image("serve", 1000);
    start_target(sandboxes[_i]);
    const char *id = own("44444444-0000-4000-8000-000000000001");
    struct infra_observation first, seen;
    apply(id, 0, &first);
    infra_process_free(target);
    start_target(sandboxes[_i]);
    ck_assert_int_eq(infra_observe(target, id, &seen, NULL), 0);
    ck_assert_int_eq(seen.state, INFRA_RUNNING);
    ck_assert_int_eq(seen.restarts, 0);
    ck_assert_str_eq(seen.address, first.address);
    trk_autofree char *text = call(first.address, "/");
    ck_assert_ptr_nonnull(text);
    apply(id, 0, &seen);
    ck_assert_str_eq(seen.address, first.address);
    remove_generation(id);
}
END_TEST

START_TEST(test_nothing_is_left_of_a_job_that_forks_daemons)
{
    if (!can_use(sandboxes[_i])) {
        return;
    }
    put_image("daemons", 1000);
    start_target(sandboxes[_i]);
    const char *id = own("55555555-0000-4000-8000-000000000001");
    if (_i == 1 && ((struct process_target *)target->state)->cgroups.version == 0) {
        printf("neither namespaces nor control groups: daemons cannot all be found\n");
        return;
    }
    struct infra_observation seen;
    apply(id, 0, &seen);
    trk_autofree char *text = call(seen.address, "/");
    ck_assert_ptr_nonnull(text);
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    while (count_sleepers() == 0 && trk_now_ns() < deadline) {
        trk_sleep_ms(5);
    }
    ck_assert_int_ge(count_sleepers(), 1);
    ck_assert_int_ge(count_processes(id), 2);
    remove_generation(id);
    /* Also the one that cleared its environment: by its namespace or its control group. */
    ck_assert_int_eq(count_sleepers(), 0);
}
END_TEST

static off_t size_of(const char *id, const char *file)
{
    struct stat st;
    trk_autofree char *path = workload_path(target->state, id, file);
    return stat(path, &st) == 0 ? st.st_size : 0;
}

START_TEST(test_a_flood_of_output_does_not_fill_the_former_log)
{
    put_image("flood", 1000);
    start_target(can_use("bwrap") ? "bwrap" : "none");
    const char *id = own("5a555555-0000-4000-8000-000000000001");
    struct infra_observation seen;
    apply(id, 0, &seen);
    int cuts = 0;
    off_t last = 0;
    int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
    while (cuts < 4 && trk_now_ns() < deadline) {
        off_t size = size_of(id, "output.log");
        cuts += size < last;
        last = size;
        ck_assert_int_le(size_of(id, "output.log.1"), 20 << 20);
        trk_sleep_ms(1);
    }
    ck_assert_int_eq(cuts, 4);
    remove_generation(id);
}
END_TEST

START_TEST(test_stop_asks_first_and_kills_later)
{
    if (!can_use(sandboxes[_i])) {
        return;
    }
    static const char *const behaviours[] = {"serve", "deaf"};
    for (int k = 0; k < 2; k++) {
        put_image(behaviours[k], 1000);
        start_target(sandboxes[_i]);
        const char *id = own(k == 0 ? "66666666-0000-4000-8000-000000000000"
                                    : "66666666-0000-4000-8000-000000000001");
        struct infra_observation seen;
        apply(id, 0, &seen);
        trk_autofree char *text = call(seen.address, "/"); /* its handlers are set up */
        ck_assert_ptr_nonnull(text);
        ck_assert_int_eq(target->stop(target, id, k == 0 ? 30000 : 1000, NULL), 0);
        if (k == 1) { /* alive until its time is up: nobody may take it for gone and remove it */
            ck_assert_int_eq(infra_observe(target, id, &seen, NULL), 0);
            ck_assert_int_eq(seen.state, INFRA_STOPPING);
        }
        wait_state(id, INFRA_GONE, &seen);
        int64_t deadline = trk_now_ns() + 30 * TRK_NS_PER_S;
        while (count_processes(id) > 0 && trk_now_ns() < deadline) {
            trk_sleep_ms(5);
        }
        ck_assert_int_eq(count_processes(id), 0);
        struct trk_buf logs;
        trk_buf_init(&logs, 10000);
        ck_assert_int_eq(target->logs(target, id, 0, &logs, NULL), 0);
        ck_assert_int_eq(strstr(logs.data, "asked to end") != NULL, k == 0);
        trk_buf_fini(&logs);
        remove_generation(id);
        infra_process_free(target);
        target = NULL;
    }
}
END_TEST

START_TEST(test_memory_limit_is_enforced_and_named)
{
    if (!can_use(sandboxes[_i])) {
        return;
    }
    put_image("hog", 1000);
    start_target(sandboxes[_i]);
    if (((struct process_target *)target->state)->cgroups.version == 0) {
        printf("no control groups here: the memory limit is not tested\n");
        return;
    }
    const char *id = own("77777777-0000-4000-8000-000000000001");
    struct infra_observation seen;
    apply(id, 64 << 20, &seen);
    wait_state(id, INFRA_BACKOFF, &seen);
    ck_assert_msg(strstr(seen.reason, "out of memory: killed at its limit of 64 MiB") != NULL, "%s",
                  seen.reason);
    remove_generation(id);
}
END_TEST

START_TEST(test_stop_all_ends_every_job_and_apply_starts_it_again)
{
    if (!can_use(sandboxes[_i])) {
        return;
    }
    put_image("serve", 1000);
    start_target(sandboxes[_i]);
    const char *const ids[] = {own("88888888-0000-4000-8000-000000000001"),
                               own("88888888-0000-4000-8000-000000000002")};
    struct infra_observation seen;
    for (int i = 0; i < 2; i++) {
        apply(ids[i], 0, &seen);
        trk_autofree char *text = call(seen.address, "/");
        ck_assert_ptr_nonnull(text);
    }
    infra_process_free(target);
    target = NULL;
    trk_autofree char *state = path_of("state");
    struct trk_err err = {0};
    size_t count = 0;
    ck_assert_msg(infra_process_stop_all(state, 5000, &count, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(count, 2);
    ck_assert_int_eq(count_processes(ids[0]) + count_processes(ids[1]), 0);
    start_target(sandboxes[_i]);
    ck_assert_int_eq(infra_observe(target, ids[0], &seen, &err), 0);
    ck_assert_int_eq(seen.state, INFRA_GONE);
    apply(ids[0], 0, &seen);
    ck_assert_int_eq(seen.state, INFRA_RUNNING);
    remove_generation(ids[0]);
    remove_generation(ids[1]);
}
END_TEST

/* Empty, cut, or something else: the others are told of, and the victim is made anew or goes. */
START_TEST(test_damaged_document_concerns_one_job)
{
    static const char *const damages[] = {"", "{\"generation_id\": \"44", "[]"};
    if (!can_use("bwrap")) {
        return;
    }
    struct trk_err err = {0};
    put_image("serve", 1000);
    start_target("bwrap");
    const char *victim = own("44444444-0000-4000-8000-000000000001");
    const char *other = own("44444444-0000-4000-8000-000000000002");
    struct infra_observation seen;
    apply(victim, 0, &seen);
    apply(other, 0, &seen);
    trk_autofree char *document = trk_xasprintf("%s/state/jobs/%s/workload.json", root, victim);
    const char *damage = damages[_i];
    ck_assert_int_eq(trk_file_write(document, damage, strlen(damage), 0600, &err), 0);

    struct infra_observation *list = NULL;
    size_t count = 0;
    ck_assert_msg(target->list(target, NULL, &list, &count, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(count, 2);
    for (size_t i = 0; i < count; i++) {
        bool is_victim = strcmp(list[i].generation_id, victim) == 0;
        ck_assert_int_eq(list[i].state, is_victim ? INFRA_GONE : INFRA_RUNNING);
        ck_assert(!is_victim || strstr(list[i].reason, "workload.json is damaged") != NULL);
    }
    free(list);
    trk_autofree char *died = call(seen.address, "/die");
    ck_assert_ptr_null(died);
    do { /* the other one is still watched */
        wait_state(other, INFRA_RUNNING, &seen);
    } while (seen.restarts == 0);
    trk_autofree char *again = call(seen.address, "/");
    ck_assert_ptr_nonnull(again);
    ck_assert_int_eq(target->stop(target, victim, 1000, &err), 0);

    apply(victim, 0, &seen);
    ck_assert_int_eq(seen.state, INFRA_RUNNING);
    trk_autofree char *text = call(seen.address, "/");
    ck_assert_ptr_nonnull(text);
    int64_t deadline = trk_now_ns() + 10 * TRK_NS_PER_S;
    while (count_processes(victim) != count_processes(other)) { /* the former one has ended */
        ck_assert(trk_now_ns() < deadline);
        trk_sleep_ms(20);
    }

    ck_assert_int_eq(trk_file_write(document, damage, strlen(damage), 0600, &err), 0);
    remove_generation(victim);
    trk_autofree char *of_other = trk_xasprintf("%s/state/jobs/%s/workload.json", root, other);
    ck_assert_int_eq(trk_file_write(of_other, damage, strlen(damage), 0600, &err), 0);
    infra_process_free(target);
    target = NULL;
    trk_autofree char *state = path_of("state");
    ck_assert_msg(infra_process_stop_all(state, 100, &count, &err) == 0, "%s", err.text);
    ck_assert_int_eq(count_processes(other), 0);
}
END_TEST

START_TEST(test_full_disk_leaves_nothing_half)
{
    trk_autofree char *state = path_of("state");
    struct trk_err err = {0};
    ck_assert_int_eq(trk_mkdir_p(state, 0755, &err), 0);
    if (mount("tmpfs", state, "tmpfs", 0, "size=512k") < 0) {
        printf("no mounting here: the full disk is not tested\n");
        return;
    }
    put_image("serve", 4 << 20);
    start_target("none");
    const char *id = own("99999999-0000-4000-8000-000000000001");
    struct infra_generation_spec spec = make_spec(id);
    struct infra_observation seen;
    ck_assert_int_eq(target->apply(target, &spec, &seen, &err), TRK_NO_SPACE);
    ck_assert_int_eq(infra_observe(target, id, &seen, &err), TRK_NOT_FOUND);
    trk_autofree char *dir = trk_xasprintf("%s/jobs/%s", state, id);
    ck_assert(!trk_path_exists(dir));
    infra_process_free(target);
    target = NULL;
    ck_assert_int_eq(umount2(state, MNT_DETACH), 0);
}
END_TEST

START_TEST(test_wrong_images_and_ids_are_refused)
{
    put_image("serve", 1000);
    start_target("none");
    struct trk_err err = {0};
    struct infra_observation seen;
    struct infra_generation_spec spec = make_spec("../../etc");
    ck_assert_int_eq(target->apply(target, &spec, &seen, &err), TRK_INVALID);
    spec = make_spec(own("aaaaaaaa-0000-4000-8000-000000000001"));
    spec.image_digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    ck_assert_int_lt(target->apply(target, &spec, &seen, &err), 0);
    ck_assert_int_eq(infra_observe(target, spec.generation_id, &seen, &err), TRK_NOT_FOUND);
    ck_assert_int_eq(infra_observe(target, "../x", &seen, &err), TRK_NOT_FOUND);
}
END_TEST

START_TEST(test_without_its_sandbox_a_job_is_refused)
{
    static const char *const problems[] = {"bubblewrap is not installed", "no_launcher"};
    put_image("serve", 1000);
    trk_autofree char *path = trk_xstrdup(getenv("PATH"));
    if (_i == 0) {
        ck_assert_int_eq(setenv("PATH", root, 1), 0);
    }
    start_target_with("bwrap", _i == 0 ? "job_launch" : "no_launcher");
    struct infra_generation_spec spec = make_spec(own("bcbcbcbc-0000-4000-8000-000000000001"));
    struct infra_observation seen;
    struct trk_err err = {0};
    ck_assert_int_eq(target->apply(target, &spec, &seen, &err), TRK_INVALID);
    ck_assert_int_eq(setenv("PATH", path, 1), 0);
    ck_assert_msg(strstr(err.text, problems[_i]) != NULL, "%s", err.text);
    ck_assert_msg(strstr(err.text, "PROCESS_SANDBOX=off") != NULL, "%s", err.text);
    ck_assert_int_eq(count_processes(spec.generation_id), 0);
}
END_TEST

START_TEST(test_environment_cannot_be_used_against_the_launcher)
{
    /* LD_PRELOAD and friends belong to the job, never to what sets up the sandbox as root. */
    if (!can_use("bwrap")) {
        return;
    }
    put_image("serve", 1000);
    start_target("bwrap");
    const char *id = own("bbbbbbbb-0000-4000-8000-000000000001");
    struct infra_generation_spec spec = make_spec(id);
    const char *const env[] = {"LD_PRELOAD=/src/job/evil.so", "BASH_ENV=/x", NULL};
    spec.env = env;
    struct infra_observation seen;
    struct trk_err err = {0};
    ck_assert_msg(target->apply(target, &spec, &seen, &err) == 0, "%s", err.text);
    trk_autofree char *text = call(seen.address, "/");
    ck_assert_ptr_nonnull(text);
    ck_assert_ptr_nonnull(strstr(text, "env LD_PRELOAD=/src/job/evil.so"));
    /* The dynamic linker complains once, for the wrapper itself, after the change of user. */
    trk_autofree char *logs = wait_log(id, "behaviour serve\n");
    const char *complaint = strstr(logs, "evil.so");
    ck_assert_msg(complaint != NULL && strstr(complaint + 7, "evil.so") == NULL, "%s", logs);
    remove_generation(id);
}
END_TEST

int main(int argc, char **argv, char **env)
{
    if (argc > 2 && strcmp(argv[1], "run") == 0) {
        return wrapper_main(argv[2], env);
    }
    (void)setenv("AUTH_KEY", "must-not-reach-a-job", 1);
    Suite *suite = suite_create("process target");
    TCase *tcase = tcase_create("process target");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_job_runs_confined_and_goes_without_a_trace, 0, 2);
    tcase_add_test(tcase, test_state_below_opt_is_not_shown);
    tcase_add_loop_test(tcase, test_replicas_are_processes_of_their_own, 0, 2);
    tcase_add_test(tcase, test_whoever_watches_is_told);
    tcase_add_loop_test(tcase, test_crash_is_explained_and_restarted_with_pauses, 0, 2);
    tcase_add_loop_test(tcase, test_killed_job_comes_back_at_its_address, 0, 2);
    tcase_add_loop_test(tcase, test_job_outlives_the_target_and_is_found_again, 0, 2);
    tcase_add_loop_test(tcase, test_nothing_is_left_of_a_job_that_forks_daemons, 0, 2);
    tcase_add_test(tcase, test_a_flood_of_output_does_not_fill_the_former_log);
    tcase_add_loop_test(tcase, test_stop_asks_first_and_kills_later, 0, 2);
    tcase_add_loop_test(tcase, test_memory_limit_is_enforced_and_named, 0, 2);
    tcase_add_loop_test(tcase, test_stop_all_ends_every_job_and_apply_starts_it_again, 0, 2);
    tcase_add_loop_test(tcase, test_damaged_document_concerns_one_job, 0, 3);
    tcase_add_test(tcase, test_full_disk_leaves_nothing_half);
    tcase_add_test(tcase, test_wrong_images_and_ids_are_refused);
    tcase_add_loop_test(tcase, test_without_its_sandbox_a_job_is_refused, 0, 2);
    tcase_add_test(tcase, test_environment_cannot_be_used_against_the_launcher);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? 1 : 0;
}
