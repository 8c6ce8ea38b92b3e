#include "image_builder/build/build.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "version.h"

#define CODE_LEVEL   6
#define WARNINGS_MAX 8192

/* ---- the request ---- */

static bool is_id(const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789-_";
    size_t len = strlen(text);
    return len > 0 && len <= 64 && strspn(text, allowed) == len;
}

int build_request_read(const json_t *body, struct build_request *ret, struct trk_err *err)
{
    const json_t *credentials = json_object_get(body, "git_credentials");
    const json_t *flags = json_object_get(body, "build_flags");
    struct build_request request = {
        .manifest = json_object_get(body, "manifest"),
        .manifest_yaml = trk_json_string_or(body, "manifest_yaml", NULL),
        .git_username = trk_json_string_or(credentials, "username", NULL),
        .git_password = trk_json_string_or(credentials, "password", NULL),
        .secret_build_env = json_object_get(body, "secret_build_env"),
        .tag = trk_json_string_or(body, "tag", ""),
        .source_digest = trk_json_string_or(body, "source_digest", NULL),
        .deployment_id = trk_json_string_or(body, "deployment_id", ""),
    };
    size_t i;
    json_t *flag;
    json_array_foreach (flags, i, flag) {
        const char *text = json_string_value(flag);
        if (text == NULL || (text[0] != '\0' && strcmp(text, "--no-cache") != 0)) {
            return trk_err_set(err, TRK_INVALID, "build_flags: only --no-cache is known");
        }
        request.no_cache = request.no_cache || text[0] != '\0';
    }
    if (json_is_string(json_object_get(body, "build_context"))) {
        return trk_err_set(
            err, TRK_INVALID,
            "build_context: put the archive to /api/v1/sources/{digest}, and name it "
            "by source_digest");
    }
    if (request.source_digest != NULL && !trk_digest_is_valid(request.source_digest)) {
        return trk_err_set(err, TRK_INVALID,
                           "source_digest: a digest is sha256: and 64 hexadecimal digits");
    }
    if (!trk_oci_tag_is_valid(request.tag)) {
        return trk_err_set(err, TRK_INVALID, "tag: not a valid image tag");
    }
    if (!is_id(request.deployment_id)) {
        return trk_err_set(err, TRK_INVALID,
                           "deployment_id: letters, digits, '-' and '_' only, 64 at most");
    }
    if (json_string_length(json_object_get(request.manifest, "name")) == 0) {
        return trk_err_set(err, TRK_INVALID, "manifest: name is required");
    }
    *ret = request;
    return 0;
}

/* ---- names ---- */

void build_repository(const char *namespace, const char *job_name, char out[256])
{
    char digest[TRK_DIGEST_SIZE];
    char plain[128];
    (void)snprintf(out, 256, "%s/" BUILD_REPOSITORIES "/%s", namespace, job_name);
    if (strlen(job_name) < sizeof(plain) && strchr(job_name, '/') == NULL &&
        trk_oci_repository_is_valid(out)) {
        return;
    }
    /* Upper case, spaces, … : what is allowed of it, to be recognised, and a digest, to be unlike
     * any other's. */
    size_t n = 0;
    for (const char *p = job_name; *p != '\0' && n + 1 < sizeof(plain); p++) {
        char c = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
        bool is_good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (is_good || (n > 0 && plain[n - 1] != '-')) {
            plain[n++] = is_good ? c : '-';
        }
    }
    while (n > 0 && plain[n - 1] == '-') {
        n--;
    }
    plain[n] = '\0';
    trk_digest(job_name, strlen(job_name), digest);
    (void)snprintf(out, 256, "%s/" BUILD_REPOSITORIES "/%s%s%.12s", namespace, plain,
                   n > 0 ? "-" : "", digest + 7);
}

/* ---- phases ---- */

static const char *const *labels_of(const struct build *build, const char **labels)
{
    labels[0] = build->job_name;
    labels[1] = build->job_version;
    labels[2] = build->phase;
    return labels;
}

static void end_phase(struct build *build)
{
    if (build->phase[0] == '\0') {
        return;
    }
    const char *labels[3];
    const struct builder_metrics *m = &build->ib->m;
    double seconds = (double)(trk_now_ns() - build->phase_ns) / (double)TRK_NS_PER_S;
    trk_series_add(trk_metric_series(m->phase_duration, labels_of(build, labels)), seconds);
    trk_series_add(trk_metric_series(m->phase_done, labels_of(build, labels)), 1);
    build->phase[0] = '\0';
}

void build_begin_phase(struct build *build, const char *phase)
{
    end_phase(build);
    (void)snprintf(build->phase, sizeof(build->phase), "%s", phase);
    build->phase_ns = trk_now_ns();
    if (build->on_phase != NULL) {
        build->on_phase(build->ctx, phase);
    }
}

int build_check_cancel(const struct build *build, struct trk_err *err)
{
    return build->cancel != NULL && *build->cancel
               ? trk_err_set(err, TRK_CANCELLED, "the build was cancelled")
               : 0;
}

/* ---- the job type ---- */

void build_warn(struct build *build, const char *fmt, ...)
{
    trk_autofree char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int len = vasprintf(&text, fmt, args);
    va_end(args);
    trk_assert(len >= 0);
    (void)trk_buf_addf(&build->warnings, "%s%s", build->warnings.len > 0 ? "\n" : "", text);
    build_log_printf(build->log, "Warning: %s", text);
}

static int unsupported(const char *what, const char *instead, struct trk_err *err)
{
    return trk_err_set(err, TRK_INVALID,
                       "%s: not supported on this set-up, which builds images "
                       "without a container engine; %s",
                       what, instead);
}

static int check_python_version(const struct build *build, struct trk_err *err)
{
    const json_t *extra = json_object_get(build->request.manifest, "jobtype_extra");
    const char *want = trk_json_string_or(extra, "python_version", "");
    char have[16];
    if (want[0] == '\0') {
        return 0;
    }
    int rc = build_python_version(have, err);
    if (rc < 0) {
        return rc;
    }
    size_t len = strlen(have);
    bool is_same = strncmp(want, have, len) == 0 && (want[len] == '\0' || want[len] == '.');
    return is_same ? 0
                   : trk_err_set(err, TRK_INVALID,
                                 "jobtype_extra.python_version: %.40s is not available; jobs run "
                                 "on Python %s here",
                                 want, have);
}

/* What runs otherwise than the manifest says is a warning of the deployment. */
static void note_ignored(struct build *build)
{
    trk_autofree struct trk_faults *notes = trk_xcalloc(1, sizeof(*notes));
    trk_manifest_note_ignored(build->request.manifest, notes);
    for (size_t i = 0; i < notes->count && i < TRK_FAULTS_MAX; i++) {
        build_warn(build, "%s: %s", notes->list[i].path, notes->list[i].text);
    }
}

int build_check_job_type(struct build *build, struct trk_err *err)
{
    const json_t *manifest = build->request.manifest;
    if (json_array_size(json_object_get(manifest, "system_dependencies")) > 0) {
        return unsupported("system_dependencies",
                           "install the packages on the machine that runs the jobs", err);
    }
    if (json_is_object(json_object_get(manifest, "docker")) ||
        json_object_get(json_object_get(manifest, "jobtype_extra"), "dockerfile_path") != NULL) {
        return unsupported("a Dockerfile of the job's own", "use job type python3", err);
    }
    int rc = trk_manifest_python(manifest, &build->python, err);
    if (rc == 0) {
        note_ignored(build);
    }
    return rc < 0 ? rc : check_python_version(build, err);
}

/* ---- code layer and image ---- */

int build_add_code(struct build *build, struct trk_err *err)
{
    int rc = depot_layer_new(build->ib->depot, &build->code_layer, err);
    if (rc == 0) {
        rc = trk_oci_layer_write(build->folder_fd, "src/job", depot_layer_fd(build->code_layer),
                                 CODE_LEVEL, &build->code, err);
    }
    (void)snprintf(build->code.role, sizeof(build->code.role), "code");
    return rc < 0 ? trk_err_wrap(err, "packing the job's folder") : 0;
}

int build_make_image(struct build *build, struct trk_err *err)
{
    const char *entrypoint[5] = {"job_wrapper", "run", build->python.entrypoint_path,
                                 build->python.entrypoint_class, NULL};
    trk_autofree char *git_version = trk_xasprintf("GIT_VERSION=%s", build->version);
    const char *const env[] = {git_version, NULL};
    struct trk_oci_descriptor layers[2];
    size_t count = 0;
    if (build->dependencies.digest[0] != '\0') {
        layers[count++] = build->dependencies;
    }
    layers[count++] = build->code;
    json_auto_t *labels = json_pack("{s:s, s:s, s:s}", "job-name", build->job_name, "job-version",
                                    build->job_version, "racetrack-component", "job");
    const struct trk_oci_image_spec spec = {.layers = layers,
                                            .layer_count = count,
                                            .env = env,
                                            .entrypoint = entrypoint,
                                            .working_dir = "/src/job",
                                            .exposed_port = "7000/tcp",
                                            .labels = labels};
    trk_autofree char *config = NULL;
    trk_autofree char *manifest = NULL;
    char repository[256];
    int64_t began_ns = trk_now_ns();
    build_repository(build->ib->config->docker_registry_namespace, build->job_name, repository);
    int rc = trk_oci_image_make(&spec, &config, &manifest, err);
    if (rc == 0) {
        const struct depot_image image = {.repository = repository,
                                          .tag = build->request.tag,
                                          .config = config,
                                          .manifest = manifest,
                                          .layer = build->code_layer,
                                          .descriptor = &build->code};
        rc = depot_image_put(build->ib->depot, &image, build->image_digest, err);
    }
    if (rc == 0) {
        trk_metric_inc(build->ib->m.images_pushed);
        trk_metric_add(build->ib->m.pushed_duration,
                       (double)(trk_now_ns() - began_ns) / (double)TRK_NS_PER_S);
        (void)snprintf(build->image_name, sizeof(build->image_name), "%s/%s:%s",
                       build->ib->config->docker_registry, repository, build->request.tag);
        build_log_printf(build->log, "Image: %s\nDigest: %s", build->image_name,
                         build->image_digest);
    }
    return rc < 0 ? trk_err_wrap(err, "making the image") : 0;
}

/* ---- all of it ---- */

void build_init(struct build *build)
{
    *build = (struct build){.folder_fd = -1};
    trk_buf_init(&build->warnings, WARNINGS_MAX);
}

void build_fini(struct build *build)
{
    build_secrets_fini(&build->secrets);
    trk_buf_fini(&build->warnings);
    depot_layer_free(build->code_layer);
    if (build->folder_fd >= 0) {
        (void)close(build->folder_fd);
    }
    free(build->folder);
    free(build->workspace);
}

static void add_secrets(struct build *build)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)build->request.secret_build_env, key, value) {
        build_secrets_add(&build->secrets, json_string_value(value));
    }
    build_secrets_add(&build->secrets, build->request.git_password);
}

static int make_workspace(struct build *build, struct trk_err *err)
{
    char id[TRK_UUID_SIZE];
    trk_uuid4(id);
    build->workspace = trk_xasprintf("%s/%s-%.8s", build->ib->workspaces_dir,
                                     build->request.deployment_id, id);
    return trk_mkdir_p(build->workspace, 0700, err);
}

static int run_steps(struct build *build, struct trk_err *err)
{
    static const struct {
        const char *phase; /* begins with this step; NULL: goes on */
        int (*step)(struct build *build, struct trk_err *err);
    } steps[] = {
        {"preparing job type builder", build_check_job_type},
        {"fetching the source code", build_fetch_source},
        {"building image (1/1)", build_prepare_folder},
        {NULL, build_add_code},
        {"installing requirements", build_add_requirements},
        {"pushing image (1/1)", build_make_image},
    };
    for (size_t i = 0; i < TRK_COUNT(steps); i++) {
        if (steps[i].phase != NULL) {
            build_begin_phase(build, steps[i].phase);
        }
        int rc = build_check_cancel(build, err);
        if (rc == 0) {
            rc = steps[i].step(build, err);
        }
        if (rc < 0) {
            return rc;
        }
        if (steps[i].step == build_fetch_source) {
            build_compare_manifest(build);
        }
    }
    return 0;
}

int build_run(struct build *build, struct trk_err *err)
{
    build->job_name = trk_json_string_or(build->request.manifest, "name", "");
    build->job_version = trk_manifest_version(build->request.manifest);
    add_secrets(build);
    build_log_printf(build->log, "Building %s %s (deployment %s)", build->job_name,
                     build->job_version, build->request.deployment_id);
    int rc = make_workspace(build, err);
    if (rc == 0) {
        rc = run_steps(build, err);
    }
    if (rc < 0) {
        struct trk_buf shown;
        trk_buf_init(&shown, 4 * TRK_ERR_TEXT_MAX);
        build_secrets_hide(&build->secrets, err->text, strlen(err->text), &shown);
        (void)trk_err_set(err, rc, "%s", shown.data);
        /* what follows its first line was taken from the log */
        build_log_printf(build->log, "ERROR: %.*s", (int)strcspn(shown.data, "\n"), shown.data);
        trk_buf_fini(&shown);
    }
    build_begin_phase(build, "cleaning up the workspace");
    struct trk_err ignored = {0};
    if (build->ib->config->clean_up_workspaces && build->workspace != NULL &&
        trk_rm_rf(build->workspace, &ignored) < 0) {
        trk_log_warn("a build's workspace was not removed", "error", ignored.text, NULL);
    }
    end_phase(build);
    return rc;
}
