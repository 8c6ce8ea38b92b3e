/* Builds through the API: assembled images, errors, phases. What needs pip, git or skopeo is in
 * tests/e2e/test_image_builder.py. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "image_builder/build/build.h"
#include "image_builder/build/queue.h"
#include "image_builder/build/reporter.h"
#include "image_builder/housekeeping.h"
#include "libtrack/base/clock.h"
#include "tests/unit/image_builder/service_helper.h"
#include "tests/unit/libtrack/oci/tar_helper.h"

#define ADDER "class Adder:\n    def perform(self, a, b):\n        return a + b\n"
#define EXTRA "\"jobtype_extra\":{\"entrypoint_path\":\"adder.py\",\"entrypoint_class\":\"Adder\"}"

static struct trk_buf source; /* tar of the context */

static void setup(void)
{
    service_up();
    trk_buf_init(&source, 1 << 24);
}
static void teardown(void)
{
    trk_buf_fini(&source);
    service_down();
}

static void add_file(const char *name, const char *text)
{
    tar_add(&source, &(struct tar_item){name, '0', 0, NULL, text});
}

static void put_source(const void *bytes, size_t len, char ret_digest[TRK_DIGEST_SIZE])
{
    trk_digest(bytes, len, ret_digest);
    trk_autofree char *path = trk_xasprintf("/api/v1/sources/%s", ret_digest);
    ck_assert_int_eq(send_with("PUT", path, NULL, token, bytes, len), 201);
}

/* Posts a build of `source` (NULL members leave the default); *the answer is returned owned. */
static json_t *build(const char *extra_members, json_t *changes)
{
    trk_autofree char *manifest_text = trk_xasprintf(
        "{\"name\":\"adder\",\"version\":\"1.0.0\",\"owner_email\":\"a@b.c\",\"jobtype\":"
        "\"python3:latest\",\"git\":{\"remote\":\"https://example.com/x\"},%s}",
        extra_members);
    json_t *manifest;
    ck_assert_msg(trk_json_parse(manifest_text, strlen(manifest_text), &manifest, &err) == 0, "%s",
                  err.text);
    struct trk_buf gz, whole;
    char digest[TRK_DIGEST_SIZE];
    trk_buf_init(&gz, 1 << 24);
    trk_buf_init(&whole, 1 << 24);
    trk_buf_add(&whole, source.data, source.len);
    tar_end(&whole);
    gzip_add(&gz, whole.data, whole.len);
    put_source(gz.data, gz.len, digest);
    json_auto_t *body = json_pack("{s:o, s:s, s:s, s:s, s:s, s:{}, s:[]}", "manifest", manifest,
                                  "manifest_yaml", "name: adder # as typed\n", "tag",
                                  "2026-01-31T120000", "deployment_id", "dep-1", "source_digest",
                                  digest, "secret_build_env", "build_flags");
    if (changes != NULL) {
        json_object_update(body, changes);
        json_decref(changes);
    }
    trk_autofree char *text = trk_json_text(body);
    const char *const headers[] = {"Content-Type: application/json", NULL};
    send_with("POST", "/api/v1/build", headers, token, text, strlen(text));
    trk_buf_fini(&gz);
    trk_buf_fini(&whole);
    json_t *result;
    ck_assert_msg(trk_http_answer_json(&answer, &result, &err) == 0, "%s", err.text);
    return result;
}

static const char *text_of(const json_t *object, const char *key)
{
    return trk_json_string_or(object, key, "(null)");
}

static void assert_workspaces_are_gone(void)
{
    trk_autofree char *path = trk_xasprintf("%s/images/workspaces", state);
    ck_assert_int_eq(rmdir(path), 0); /* only an empty folder can be removed */
    ck_assert_int_eq(mkdir(path, 0700), 0);
}

START_TEST(assembled_image_is_what_it_should_be)
{
    add_file("adder.py", ADDER);
    add_file("job.yaml", "name: something else");
    add_file("data/x.csv", "1,2");
    add_file("__pycache__/adder.pyc", "cache");
    json_auto_t *result = build(EXTRA, NULL);
    ck_assert_int_eq(answer.status, 200);
    ck_assert_msg(json_is_null(json_object_get(result, "error")), "%s", text_of(result, "error"));
    ck_assert_str_eq(text_of(result, "image_name"),
                     "127.0.0.1:7201/racetrack/job-entrypoint/adder:2026-01-31T120000");
    ck_assert_str_eq(text_of(result, "warnings"), "");
    ck_assert(trk_digest_is_valid(text_of(result, "image_digest")));
    assert_workspaces_are_gone();
    /* through the registry, as the process target gets it */
    char *bytes;
    size_t len;
    char digest[TRK_DIGEST_SIZE];
    struct trk_oci_image image;
    ck_assert_int_eq(
        trk_registry_manifest(client, base_url, token, "racetrack/job-entrypoint/adder",
                              text_of(result, "image_digest"), &bytes, &len, digest, &err),
        0);
    ck_assert_int_eq(trk_oci_manifest_parse(bytes, len, &image, &err), 0);
    free(bytes);
    ck_assert_uint_eq(image.layer_count, 1);
    ck_assert_str_eq(image.layers[0].role, "code");
    trk_autofree char *layer = trk_xasprintf("%s/layer", state);
    trk_autofree char *folder = trk_xasprintf("%s/unpacked", state);
    trk_autoclose int fd = open(layer, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_eq(trk_registry_blob(client, base_url, token, "racetrack/job-entrypoint/adder",
                                       image.layers[0].digest, fd, &err),
                     0);
    ck_assert_int_eq(trk_mkdir_p(folder, 0755, &err), 0);
    trk_autoclose int folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
    ck_assert_msg(trk_unpack(NULL, 0, fd, folder_fd, "src/job", NULL, &err) == 0, "%s", err.text);
    trk_autofree char *manifest_path = trk_xasprintf("%s/job.yaml", folder);
    trk_autofree char *manifest = NULL;
    ck_assert_int_eq(trk_file_read(manifest_path, 1000, &manifest, &len, &err), 0);
    ck_assert_str_eq(manifest, "name: adder # as typed\n");
    ck_assert_int_eq(faccessat(folder_fd, "data/x.csv", R_OK, 0), 0);
    ck_assert_int_ne(faccessat(folder_fd, "__pycache__", R_OK, 0), 0);
    trk_autofree char *config_path = trk_xasprintf("/v2/x/blobs/%s", image.config.digest);
    ck_assert_int_eq(request("GET", config_path, NULL), 200);
    ck_assert_ptr_nonnull(
        strstr(answer.body, "\"Entrypoint\":[\"job_wrapper\",\"run\",\"adder.py\",\"Adder\"]"));
    ck_assert_ptr_nonnull(strstr(answer.body, "\"job-version\":\"1.0.0\""));
    ck_assert_ptr_nonnull(strstr(answer.body, "\"7000/tcp\""));
    /* the log is kept */
    trk_autofree char *log_path = trk_xasprintf("%s/images/logs/dep-1.log", state);
    trk_autofree char *log = NULL;
    ck_assert_int_eq(trk_file_read(log_path, 10000, &log, &len, &err), 0);
    ck_assert_str_eq(log, text_of(result, "logs"));
}
END_TEST

START_TEST(same_input_same_digest)
{
    add_file("adder.py", ADDER);
    add_file("b.py", "b");
    json_auto_t *first = build(EXTRA, NULL);
    trk_buf_reset(&source);
    add_file("b.py", "b"); /* another order */
    add_file("adder.py", ADDER);
    json_auto_t *second = build(EXTRA, json_pack("{s:s}", "tag", "another"));
    ck_assert_str_eq(text_of(first, "image_digest"), text_of(second, "image_digest"));
    trk_buf_reset(&source);
    add_file("b.py", "b changed");
    add_file("adder.py", ADDER);
    json_auto_t *third = build(EXTRA, NULL);
    ck_assert_str_ne(text_of(first, "image_digest"), text_of(third, "image_digest"));
    ck_assert_str_ne(text_of(first, "image_digest"), "(null)");
}
END_TEST

START_TEST(files_with_secrets_stay_out)
{
    add_file("adder.py", ADDER);
    add_file("conf/build.env", "TOKEN=1");
    add_file("run.env", "TOKEN=2");
    json_auto_t *with = build(EXTRA ",\"secret_build_env_file\":\"conf/build.env\","
                                    "\"secret_runtime_env_file\":\"conf/../run.env\"",
                              NULL);
    trk_buf_reset(&source);
    add_file("adder.py", ADDER);
    tar_add(&source, &(struct tar_item){"conf", '5', 0755, NULL, NULL});
    json_auto_t *without = build(EXTRA, NULL);
    ck_assert(json_is_null(json_object_get(with, "error")));
    ck_assert_str_eq(text_of(with, "image_digest"), text_of(without, "image_digest"));
}
END_TEST

static const struct {
    const char *members, *code, *says;
} mistakes[] = {
    {"\"jobtype_extra\":{\"entrypoint_path\":\"other.py\"}", "not_found", "other.py"},
    {"\"jobtype_extra\":{\"entrypoint_path\":\"../adder.py\"}", "invalid", "inside"},
    {"\"jobtype_extra\":{\"entrypoint_path\":\"/etc/passwd\"}", "invalid", "inside"},
    {"\"jobtype_extra\":{\"entrypoint_path\":\"folder\"}", "not_found", "no file"},
    {"\"jobtype_extra\":{\"entrypoint_path\":\"adder.py\",\"requirements_path\":\"r.txt\"}",
     "not_found", "r.txt"},
    {"\"jobtype_extra\":{}", "invalid", "entrypoint_path"},
    {EXTRA ",\"jobtype\":\"golang:latest\"", "invalid", "available: python3"},
    {EXTRA ",\"system_dependencies\":[\"gcc\"]", "invalid", "system_dependencies"},
    {EXTRA ",\"docker\":{\"dockerfile_path\":\"Dockerfile\"}", "invalid", "Dockerfile"},
    {"\"jobtype_extra\":{\"entrypoint_path\":\"adder.py\",\"python_version\":\"2.7\"}", "invalid",
     "python_version"},
};

START_TEST(mistakes_are_named)
{
    add_file("adder.py", ADDER);
    add_file("folder/x", "x");
    trk_autofree char *members = trk_xstrdup(mistakes[_i].members);
    json_t *changes = NULL;
    char *jobtype = strstr(members, ",\"jobtype\":"); /* replaces the one that build() has */
    if (jobtype != NULL) {
        trk_autofree char *text = trk_xasprintf(
            "{\"manifest\":{\"name\":\"adder\",\"version\":\"1.0.0\",%s}}", members);
        ck_assert_int_eq(trk_json_parse(text, strlen(text), &changes, &err), 0);
        *jobtype = '\0';
    }
    json_auto_t *result = build(members, changes);
    ck_assert_int_eq(answer.status, 200);
    ck_assert_msg(strcmp(text_of(result, "error_code"), mistakes[_i].code) == 0, "%s: %s %s",
                  mistakes[_i].members, text_of(result, "error_code"), text_of(result, "error"));
    ck_assert_msg(strstr(text_of(result, "error"), mistakes[_i].says) != NULL, "%s",
                  text_of(result, "error"));
    ck_assert(json_is_null(json_object_get(result, "image_digest")));
    ck_assert_uint_eq(json_array_size(json_object_get(result, "image_names")), 0);
    ck_assert_ptr_nonnull(strstr(text_of(result, "logs"), "ERROR: "));
    assert_workspaces_are_gone();
}
END_TEST

START_TEST(what_has_no_effect_is_a_warning)
{
    add_file("adder.py", ADDER);
    json_auto_t *result = build("\"jobtype_extra\":{\"entrypoint_path\":\"adder.py\","
                                "\"memray_profiler\":true,\"debian_version\":null}",
                                json_pack("{s:{s:s, s:s, s:{s:s, s:b, s:n}}}", "manifest", "name",
                                          "adder", "jobtype", "python3:2.15.0", "jobtype_extra",
                                          "entrypoint_path", "adder.py", "memray_profiler", 1,
                                          "debian_version"));
    ck_assert(json_is_null(json_object_get(result, "error")));
    const char *warnings = text_of(result, "warnings");
    ck_assert_ptr_nonnull(strstr(warnings, "jobtype: python3:2.15.0 is not installed"));
    ck_assert_ptr_nonnull(strstr(warnings, "jobtype_extra.memray_profiler: has no effect"));
    ck_assert_ptr_null(strstr(warnings, "debian_version"));
    trk_buf_reset(&source);
    add_file("adder.py", ADDER "    def webview_app(self, base_url):\n        return None\n");
    json_auto_t *webview = build(EXTRA, NULL);
    ck_assert_ptr_nonnull(strstr(text_of(webview, "warnings"), "webview_app() is not served"));
}
END_TEST

START_TEST(hostile_sources_are_refused)
{
    tar_add(&source, &(struct tar_item){"../evil", '0', 0, NULL, "x"});
    json_auto_t *escape = build(EXTRA, NULL);
    ck_assert_str_eq(text_of(escape, "error_code"), "invalid");
    trk_buf_reset(&source);
    tar_add(&source, &(struct tar_item){"adder.py", '2', 0, "/etc/passwd", NULL});
    json_auto_t *link = build(EXTRA, NULL);
    ck_assert_str_eq(text_of(link, "error_code"), "invalid");
    trk_buf_reset(&source);
    add_file("adder.py", ADDER);
    static char zeros[1 << 20];
    for (unsigned i = 0; i < 15; i++) {
        tar_add_raw(&source, "zeros", '0', 0644, NULL, zeros, sizeof(zeros), sizeof(zeros));
    }
    ((struct builder_config *)(uintptr_t)service_builder(service)->config)
        ->source_max_bytes = 10 << 20;
    json_auto_t *big = build(EXTRA, NULL);
    ck_assert_str_eq(text_of(big, "error_code"), "too_large");
    assert_workspaces_are_gone();
}
END_TEST

START_TEST(sources_are_what_they_are_called)
{
    char digest[TRK_DIGEST_SIZE];
    trk_digest("other", 5, digest);
    trk_autofree char *path = trk_xasprintf("/api/v1/sources/%s", digest);
    ck_assert_int_eq(request("PUT", path, "some"), 400);
    ck_assert_msg(strstr(answer.body, "the content has the digest") != NULL, "%s", answer.body);
    ck_assert_int_eq(request("PUT", path, NULL), 400);
    ck_assert_int_eq(request("PUT", "/api/v1/sources/x", "some"), 400);
    json_auto_t *gone = build(EXTRA, json_pack("{s:s}", "source_digest", digest));
    ck_assert_str_eq(text_of(gone, "error_code"), "not_found");
    ck_assert_msg(strstr(text_of(gone, "error"), "deploy the job again") != NULL, "%s",
                  text_of(gone, "error"));
    ck_assert_int_eq(request("PUT", path, "other"), 201);
    json_auto_t *bad = build(EXTRA, json_pack("{s:s}", "source_digest", digest));
    ck_assert_str_eq(text_of(bad, "error_code"), "invalid"); /* no archive */
    json_auto_t *none = build(EXTRA, json_pack("{s:s}", "source_digest", "sha256:x"));
    ck_assert_int_eq(answer.status, 400);
    /* not to be taken for a build from git */
    json_auto_t *old = build(EXTRA,
                             json_pack("{s:n, s:s}", "source_digest", "build_context", "QQ=="));
    ck_assert_int_eq(answer.status, 400);
}
END_TEST

START_TEST(requests_are_checked)
{
    add_file("adder.py", ADDER);
    json_auto_t *id = build(EXTRA, json_pack("{s:s}", "deployment_id", "../../etc/x"));
    ck_assert_int_eq(answer.status, 400);
    json_auto_t *tag = build(EXTRA, json_pack("{s:s}", "tag", "bad/tag"));
    ck_assert_int_eq(answer.status, 400);
    json_auto_t *flags = build(EXTRA, json_pack("{s:[s]}", "build_flags", "--privileged"));
    ck_assert_int_eq(answer.status, 400);
    json_auto_t *type = build(EXTRA, json_pack("{s:i}", "tag", 5));
    ck_assert_int_eq(answer.status, 422);
    json_auto_t *manifest = build(EXTRA, json_pack("{s:{s:s}}", "manifest", "version", "1"));
    ck_assert_int_eq(answer.status, 400);
}
END_TEST

static json_t *build_from_git(const char *remote, const char *branch)
{
    json_t *manifest = json_pack("{s:s, s:s, s:s, s:{s:s, s:s}, s:{s:s}}", "name", "adder",
                                 "version", "1.0.0", "jobtype", "python3:latest", "git", "remote",
                                 remote, "branch", branch, "jobtype_extra", "entrypoint_path", "a");
    return build(EXTRA, json_pack("{s:n, s:o}", "source_digest", "manifest", manifest));
}

START_TEST(git_remotes_are_checked_before_git_runs)
{
    static const char *const remotes[] = {"http://example.com/x",
                                          "ssh://example.com/x",
                                          "ext::sh -c id",
                                          "file:///etc",
                                          "https://example.com/ --upload-pack=x",
                                          "--upload-pack=x"};
    for (size_t i = 0; i < TRK_COUNT(remotes); i++) {
        json_auto_t *result = build_from_git(remotes[i], "main");
        ck_assert_msg(strcmp(text_of(result, "error_code"), "invalid") == 0, "%s", remotes[i]);
        ck_assert_msg(strstr(text_of(result, "error"), "git.remote:") != NULL, "%s",
                      text_of(result, "error"));
    }
    json_auto_t *result = build_from_git("https://127.0.0.1:1/x", "--upload-pack=x");
    ck_assert_msg(strstr(text_of(result, "error"), "git.branch:") != NULL, "%s",
                  text_of(result, "error"));
}
END_TEST

START_TEST(git_remotes_on_this_machine_are_refused)
{
    static const char *const remotes[] = {"https://127.0.0.1:1/x", "https://localhost:1/x",
                                          "https://[::1]:1/x", "https://169.254.169.254/x",
                                          "https://2130706433/x"};
    for (size_t i = 0; i < TRK_COUNT(remotes); i++) {
        json_auto_t *result = build_from_git(remotes[i], "");
        ck_assert_msg(strstr(text_of(result, "error"), "GIT_LOCAL_REMOTES") != NULL, "%s: %s",
                      remotes[i], text_of(result, "error"));
        ck_assert_str_eq(text_of(result, "error_code"), "invalid");
    }
}
END_TEST

START_TEST(names_become_repositories)
{
    static const struct {
        const char *name, *repository; /* NULL: something else, but valid */
    } table[] = {
        {"adder", "racetrack/job-entrypoint/adder"},
        {"a-b.c_d", "racetrack/job-entrypoint/a-b.c_d"},
        {"Adder", NULL},
        {"adder_", NULL},
        {"a b", NULL},
        {"a/b", NULL},
        {"../../x", NULL},
        {"zażółć", NULL},
        {"_", NULL},
        {"", NULL},
    };
    for (size_t i = 0; i < TRK_COUNT(table); i++) {
        char out[256];
        build_repository("racetrack", table[i].name, out);
        ck_assert_msg(trk_oci_repository_is_valid(out), "%s: %s", table[i].name, out);
        if (table[i].repository != NULL) {
            ck_assert_str_eq(out, table[i].repository);
        }
    }
    char one[256], two[256];
    build_repository("racetrack", "Adder", one);
    build_repository("racetrack", "aDDER", two);
    ck_assert_str_ne(one, two);
}
END_TEST

/* ---- server-sent events ---- */

struct events {
    unsigned logs, results;
    char error[1024];
    char digest[TRK_DIGEST_SIZE];
    struct trk_sse *sse;
};

static int on_event(void *ctx, const char *event, const char *id, const char *data,
                    struct trk_err *e)
{
    (void)id;
    struct events *events = ctx;
    json_auto_t *json = NULL;
    ck_assert_msg(trk_json_parse(data, strlen(data), &json, e) == 0, "%s", data);
    events->logs += strcmp(event, "log") == 0;
    if (strcmp(event, "result") == 0) {
        events->results++;
        snprintf(events->error, sizeof(events->error), "%s",
                 trk_json_string_or(json_object_get(json, "result"), "error", ""));
        snprintf(events->digest, sizeof(events->digest), "%s",
                 text_of(json_object_get(json, "result"), "image_digest"));
    }
    return 0;
}

static int feed(void *ctx, int status, const char *bytes, size_t len, struct trk_err *e)
{
    struct events *events = ctx;
    ck_assert_int_eq(status, 200);
    return trk_sse_feed(events->sse, bytes, len, e);
}

START_TEST(events_end_with_the_result)
{
    add_file("adder.py", ADDER);
    json_auto_t *plain = build(EXTRA, NULL);
    struct trk_buf whole;
    char digest[TRK_DIGEST_SIZE];
    trk_buf_init(&whole, 1 << 20);
    trk_buf_add(&whole, source.data, source.len);
    tar_end(&whole);
    put_source(whole.data, whole.len, digest);
    json_t *manifest = json_pack("{s:s, s:s, s:s, s:{s:s, s:s}}", "name", "adder", "version",
                                 "1.0.0", "jobtype", "python3:latest", "jobtype_extra",
                                 "entrypoint_path", "adder.py", "entrypoint_class", "Adder");
    json_auto_t *body = json_pack("{s:o, s:s, s:s, s:s, s:s}", "manifest", manifest,
                                  "manifest_yaml", "name: adder # as typed\n", "tag", "t",
                                  "deployment_id", "dep-2", "source_digest", digest);
    struct events events = {0};
    events.sse = trk_sse_new(on_event, &events);
    trk_autofree char *url = trk_xasprintf("%s/api/v1/build/sse", base_url);
    struct trk_http_call call = {.method = "POST",
                                 .url = url,
                                 .auth_token = token,
                                 .json = body,
                                 .on_data = feed,
                                 .ctx = &events};
    struct trk_http_answer sse_answer;
    ck_assert_msg(trk_http_call(client, &call, &sse_answer, &err) == 0, "%s", err.text);
    trk_http_answer_fini(&sse_answer);
    trk_sse_free(events.sse);
    ck_assert_uint_eq(events.results, 1);
    ck_assert_uint_ge(events.logs, 2);
    ck_assert_msg(events.error[0] == 0, "%s", events.error);
    ck_assert_str_eq(events.digest, text_of(plain, "image_digest"));
    trk_buf_fini(&whole);
}
END_TEST

/* ---- phases ---- */

struct lifecycle {
    pthread_mutex_t lock;
    char phases[1024];
};

static int on_phase(struct trk_request *req, struct trk_err *e)
{
    (void)e;
    struct lifecycle *lc = trk_req_ctx(req);
    pthread_mutex_lock(&lc->lock);
    size_t len = strlen(lc->phases);
    snprintf(lc->phases + len, sizeof(lc->phases) - len, "%s=%s;", trk_req_param(req, "id"),
             trk_json_string_or(trk_req_json(req), "phase", "?"));
    pthread_mutex_unlock(&lc->lock);
    return trk_reply_null(req);
}

static bool has_phase(struct lifecycle *lc, const char *text)
{
    pthread_mutex_lock(&lc->lock);
    bool has = strstr(lc->phases, text) != NULL;
    pthread_mutex_unlock(&lc->lock);
    return has;
}

START_TEST(phases_are_told_when_they_last_and_never_too_late)
{
    static const struct trk_route routes[] = {{.method = "PUT",
                                               .path = "/lifecycle/api/v1/deploy/{id}/phase",
                                               .access = "public",
                                               .request_schema = "{\"type\":\"object\"}",
                                               .handler = on_phase,
                                               .help = "phase"}};
    static const struct trk_route_table table = {"deploy", routes, 1};
    struct lifecycle lc = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct trk_http_options options = {.service = "lifecycle",
                                       .title = "lifecycle",
                                       .version = "1",
                                       .addr = "127.0.0.1",
                                       .tables = &table,
                                       .table_count = 1,
                                       .ctx = &lc};
    struct trk_http_server *server;
    ck_assert_int_eq(trk_http_server_start(&options, &server, &err), 0);
    trk_autofree char *url = trk_xasprintf("http://127.0.0.1:%d/lifecycle",
                                           trk_http_server_port(server));
    struct reporter *reporter = reporter_new(url, token);
    reporter_phase(reporter, "quick", "fetching", "");
    reporter_phase(reporter, "slow", "fetching", "");
    reporter_phase(reporter, "slow", "installing requirements", "");
    reporter_forget(reporter, "quick");
    int64_t deadline = trk_now_ns() + 10 * TRK_NS_PER_S;
    while (!has_phase(&lc, "slow=installing requirements;") && trk_now_ns() < deadline) {
        trk_sleep_ms(5);
    }
    ck_assert(has_phase(&lc, "slow=installing requirements;"));
    ck_assert(!has_phase(&lc, "slow=fetching"));
    ck_assert(!has_phase(&lc, "quick"));
    reporter_forget(reporter, "slow");
    reporter_free(reporter);
    trk_http_server_stop(server, 1000);
}
END_TEST

/* ---- cache and housekeeping ---- */

START_TEST(cached_layers_are_found_while_their_blob_is_whole)
{
    struct image_builder *ib = service_builder(service);
    struct trk_oci_descriptor layer = {.media_type = TRK_OCI_LAYER_TYPE, .size_bytes = 5};
    struct trk_oci_descriptor found;
    struct store_gc_result result;
    ck_assert_int_eq(store_put(ib->store, "layer", 5, layer.digest, &err), 0);
    memcpy(layer.diff_id, layer.digest, sizeof(layer.digest));
    ck_assert(!store_cache_get(ib->store, "key", &found));
    ck_assert_int_eq(store_cache_put(ib->store, "key", &layer, &err), 0);
    ck_assert(store_cache_get(ib->store, "key", &found));
    ck_assert_str_eq(found.digest, layer.digest);
    /* no manifest refers to it, but the cache does */
    ck_assert_int_eq(housekeeping_round(ib, NULL, -1, &result, &err), 0);
    ck_assert_uint_eq(result.removed, 0);
    ck_assert(store_cache_get(ib->store, "key", &found));
    ck_assert_int_eq(store_blob_delete(ib->store, layer.digest, &err), 0);
    ck_assert(!store_cache_get(ib->store, "key", &found));
}
END_TEST

START_TEST(what_lifecycle_does_not_name_goes)
{
    struct image_builder *ib = service_builder(service);
    struct store_gc_result result;
    char kept[TRK_DIGEST_SIZE], gone[TRK_DIGEST_SIZE];
    add_file("adder.py", ADDER);
    json_auto_t *first = build(EXTRA, NULL);
    add_file("more.py", "X = 1");
    json_auto_t *second = build(EXTRA, json_pack("{s:s}", "tag", "second"));
    put_source("kept", 4, kept);
    put_source("gone", 4, gone);
    /* not told yet: all stays */
    ck_assert_int_eq(housekeeping_round(ib, NULL, -1, &result, &err), 0);
    ck_assert_uint_eq(result.removed, 0);
    trk_autofree char *image = trk_xasprintf("%s@%s", text_of(second, "image_name"),
                                             text_of(second, "image_digest"));
    json_auto_t *in_use = json_pack("{s:[s, s], s:[s]}", "images", image, "no image", "sources",
                                    kept);
    ck_assert_int_eq(housekeeping_round(ib, in_use, 3600, &result, &err), 0);
    ck_assert_uint_eq(result.removed, 0); /* all are young */
    ck_assert_int_eq(housekeeping_round(ib, in_use, -1, &result, &err), 0);
    /* layer, config and manifest of the first image; its source, the second's, and "gone" */
    ck_assert_uint_eq(result.removed, 6);
    ck_assert(store_blob_has(ib->sources, kept, NULL) && !store_blob_has(ib->sources, gone, NULL));
    ck_assert(!store_blob_has(ib->store, text_of(first, "image_digest"), NULL));
    ck_assert_int_eq(request("GET", "/v2/racetrack/job-entrypoint/adder/manifests/second", NULL),
                     200);
    ck_assert_int_eq(
        request("GET", "/v2/racetrack/job-entrypoint/adder/manifests/2026-01-31T120000", NULL),
        404);
}
END_TEST

START_TEST(left_over_workspaces_go_at_start)
{
    trk_autofree char *folder = trk_xasprintf("%s/images/workspaces/old/source", state);
    ck_assert_int_eq(trk_mkdir_p(folder, 0755, &err), 0);
    service_stop(service);
    ck_assert_msg(service_start(&config, &service, &err) == 0, "%s", err.text);
    assert_workspaces_are_gone();
}
END_TEST

START_TEST(health_and_metrics)
{
    add_file("adder.py", ADDER);
    json_auto_t *result = build(EXTRA, NULL);
    ck_assert_int_eq(send_with("GET", "/health", NULL, NULL, NULL, 0), 200);
    ck_assert_ptr_nonnull(strstr(answer.body, "\"service\":\"image-builder\""));
    ck_assert_int_eq(send_with("GET", "/ready", NULL, NULL, NULL, 0), 200);
    ck_assert_int_eq(send_with("GET", "/metrics", NULL, NULL, NULL, 0), 200);
    static const char *const lines[] = {
        "images_built_total 1\n",
        "images_buidling_errors_total 0\n",
        "images_pushed_total 1\n",
        "image_building_requests_total{job_name=\"adder\",job_version=\"1.0.0\"} 1\n",
        "image_building_done_requests_total{job_name=\"adder\",job_version=\"1.0.0\"} 1\n",
        "image_building_request_duration_seconds_total{job_name=\"adder\"",
        "image_building_phase_done_total{job_name=\"adder\",job_version=\"1.0.0\",phase=\"fetching "
        "the source code\"} 1\n",
        "active_building_tasks 0\n",
    };
    for (size_t i = 0; i < TRK_COUNT(lines); i++) {
        ck_assert_msg(strstr(answer.body, lines[i]) != NULL, "%s", lines[i]);
    }
    ck_assert_int_eq(send_with("GET", "/openapi.json", NULL, NULL, NULL, 0), 200);
    ck_assert_ptr_nonnull(strstr(answer.body, "/api/v1/build/sse"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("build");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, assembled_image_is_what_it_should_be);
    tcase_add_test(tc, same_input_same_digest);
    tcase_add_test(tc, files_with_secrets_stay_out);
    tcase_add_loop_test(tc, mistakes_are_named, 0, TRK_COUNT(mistakes));
    tcase_add_test(tc, what_has_no_effect_is_a_warning);
    tcase_add_test(tc, hostile_sources_are_refused);
    tcase_add_test(tc, requests_are_checked);
    tcase_add_test(tc, sources_are_what_they_are_called);
    tcase_add_test(tc, git_remotes_are_checked_before_git_runs);
    tcase_add_test(tc, git_remotes_on_this_machine_are_refused);
    tcase_add_test(tc, names_become_repositories);
    tcase_add_test(tc, events_end_with_the_result);
    tcase_add_test(tc, phases_are_told_when_they_last_and_never_too_late);
    tcase_add_test(tc, cached_layers_are_found_while_their_blob_is_whole);
    tcase_add_test(tc, what_lifecycle_does_not_name_goes);
    tcase_add_test(tc, left_over_workspaces_go_at_start);
    tcase_add_test(tc, health_and_metrics);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
