/* The job's source: unpacked from the upload or cloned; what it must and must not contain. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "image_builder/build/build.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/data/yaml.h"

#define WEBVIEW_SOURCE_MAX (1 << 20)

static int unpack_upload(struct build *build, const char *into, struct trk_err *err)
{
    trk_autoclose int archive = -1;
    int64_t size;
    int rc = depot_open_source(build->ib->depot, build->request.source_digest, &archive, &size,
                               err);
    if (rc == TRK_NOT_FOUND) {
        return trk_err_set(err, TRK_NOT_FOUND,
                           "the source %s is not kept any more: deploy the job again",
                           build->request.source_digest);
    }
    if (rc < 0) {
        return rc;
    }
    trk_autoclose int fd = open(into, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return trk_err_errno(err, errno, "opening %s", into);
    }
    int64_t total = build->ib->config->source_max_bytes;
    const struct trk_unpack_limits limits = {.total_bytes_max = (uint64_t)total,
                                             .file_bytes_max = (uint64_t)(total + 1) / 2};
    rc = trk_unpack(NULL, 0, archive, fd, NULL, &limits, err);
    if (rc < 0) {
        return trk_err_wrap(err, "the uploaded source");
    }
    build_log_printf(build->log, "Source: uploaded archive of %lld bytes", (long long)size);
    (void)snprintf(build->version, sizeof(build->version), "tar");
    return 0;
}

/* The folder below the clone that git.directory names. */
static int enter_directory(struct build *build, const char *clone, struct trk_err *err)
{
    const json_t *git = json_object_get(build->request.manifest, "git");
    const char *directory = trk_json_string_or(git, "directory", ".");
    if (directory[0] == '\0') {
        directory = ".";
    }
    trk_autoclose int root = open(clone, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) {
        return trk_err_errno(err, errno, "opening %s", clone);
    }
    int rc = build_check_path("git.directory", directory, err);
    if (rc < 0) {
        return rc;
    }
    /* no links on the way: the folder is given by path to pip later */
    rc = trk_open_beneath_walk(root, directory, O_RDONLY | O_DIRECTORY, 0, &build->folder_fd, err);
    if (rc < 0) {
        return trk_err_set(err, rc == TRK_NOT_FOUND ? TRK_NOT_FOUND : TRK_INVALID,
                           "git.directory: there is no folder '%.200s' in the repository",
                           directory);
    }
    build->folder = trk_xasprintf("%s/%s", clone, directory);
    return 0;
}

int build_fetch_source(struct build *build, struct trk_err *err)
{
    trk_autofree char *into = trk_xasprintf("%s/source", build->workspace);
    int rc = trk_mkdir_p(into, 0755, err);
    if (rc < 0) {
        return rc;
    }
    if (build->request.source_digest == NULL) {
        rc = build_git_clone(build, into, err);
        return rc < 0 ? rc : enter_directory(build, into, err);
    }
    rc = unpack_upload(build, into, err);
    if (rc < 0) {
        return rc;
    }
    build->folder_fd = open(into, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (build->folder_fd < 0) {
        return trk_err_errno(err, errno, "opening %s", into);
    }
    build->folder = TRK_STEAL(into);
    return 0;
}

/* ---- the manifest in the repository ---- */

static void add_difference(struct trk_buf *names, const char *name)
{
    (void)trk_buf_addf(names, "%s%s", names->len > 0 ? ", " : "", name);
}

static void compare_members(const json_t *own, const json_t *submitted, struct trk_buf *names)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)own, key, value) {
        const json_t *other = json_object_get(submitted, key);
        if (!json_is_null(value) && !json_equal(value, other)) {
            add_difference(names, key);
        }
    }
    json_object_foreach ((json_t *)(uintptr_t)submitted, key, value) {
        if (!json_is_null(value) && json_object_get(own, key) == NULL) {
            add_difference(names, key);
        }
    }
}

/* Null when the repository has none. Read without leaving the folder: it may be a link. */
static int read_own_manifest(struct build *build, json_t **ret, struct trk_err *err)
{
    static const char *const names[] = {"job.yaml", "fatman.yaml"};
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        trk_autoclose int fd = -1;
        int rc = trk_open_beneath(build->folder_fd, names[i], O_RDONLY | O_NONBLOCK, 0, &fd, err);
        if (rc == TRK_NOT_FOUND) {
            continue;
        }
        struct trk_buf text;
        trk_buf_init(&text, TRK_YAML_BYTES_MAX);
        rc = rc < 0 ? rc : trk_buf_read_fd(&text, fd, err);
        rc = rc < 0 ? rc : trk_yaml_parse(text.data, text.len, names[i], ret, err);
        trk_buf_fini(&text);
        return rc;
    }
    *ret = json_null();
    return 0;
}

void build_compare_manifest(struct build *build)
{
    json_auto_t *own = NULL;
    struct trk_err err = {0};
    if (!build->ib->config->verify_manifest_consistency ||
        build->request.source_digest != NULL) { /* an upload comes from the same folder */
        return;
    }
    int rc = read_own_manifest(build, &own, &err);
    if (rc == 0 && (json_is_null(own) || json_object_get(own, "extends") != NULL)) {
        return; /* what the client submits is the merged one */
    }
    struct trk_buf names;
    trk_buf_init(&names, 4096);
    if (rc == 0) {
        compare_members(own, build->request.manifest, &names);
    }
    if (rc < 0) {
        build_warn(build, "the manifest in the repository can not be read: %s", err.text);
    } else if (names.len > 0) {
        build_warn(build,
                   "the manifest in the repository differs from the submitted one in: %s "
                   "(was a change not pushed?)",
                   names.data);
    }
    trk_buf_fini(&names);
}

/* ---- the folder as it will be packed ---- */

int build_check_path(const char *what, const char *path, struct trk_err *err)
{
    bool is_bad = path[0] == '\0' || path[0] == '/' || strlen(path) > 1024;
    for (const char *p = path; *p != '\0' && !is_bad; p += strspn(p, "/")) {
        size_t n = strcspn(p, "/");
        is_bad = n == 2 && p[0] == '.' && p[1] == '.';
        for (size_t i = 0; i < n; i++) {
            is_bad = is_bad || (unsigned char)p[i] < 0x20;
        }
        p += n;
    }
    return is_bad ? trk_err_set(err, TRK_INVALID,
                                "%s: '%.200s' must be a path inside the job's folder", what, path)
                  : 0;
}

/* A file that the manifest names must be there, as a file, inside. */
static int check_file(struct build *build, const char *key, const char *path, struct trk_err *err)
{
    int rc = build_check_path(key, path, err);
    if (rc < 0) {
        return rc;
    }
    trk_autoclose int fd = -1;
    struct stat st;
    rc = trk_open_beneath(build->folder_fd, path, O_RDONLY | O_NONBLOCK, 0, &fd, err);
    if (rc < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return trk_err_set(err, rc == 0 || rc == TRK_NOT_FOUND ? TRK_NOT_FOUND : TRK_INVALID,
                           "%s: there is no file '%.200s' in the job's folder", key, path);
    }
    return 0;
}

/* The client sends the content of these in another way; a copy in the image would be read by
 * everyone who can pull it. */
static int remove_secret_file(struct build *build, const char *key, struct trk_err *err)
{
    const char *path = trk_json_string_or(build->request.manifest, key, NULL);
    if (trk_str_is_empty(path)) {
        return 0;
    }
    /* "conf/../run.env" is in the image too: how it is written does not matter, where it is does */
    const char *slash = strrchr(path, '/');
    trk_autofree char *folder = slash == NULL ? trk_xstrdup(".")
                                              : trk_xstrndup(path, (size_t)(slash - path));
    trk_autoclose int fd = -1;
    if (trk_open_beneath(build->folder_fd, folder, O_RDONLY | O_DIRECTORY, 0, &fd, NULL) < 0) {
        return 0; /* outside, or not there: not in the image either */
    }
    if (unlinkat(fd, slash == NULL ? path : slash + 1, 0) < 0) {
        return errno == ENOENT || errno == ENOTDIR
                   ? 0
                   : trk_err_errno(err, errno, "taking %s out of the image", path);
    }
    build_log_printf(build->log, "Left out of the image: %s (%s)", path, key);
    return 0;
}

static int write_manifest(struct build *build, struct trk_err *err)
{
    const char *text = build->request.manifest_yaml;
    struct trk_buf made;
    trk_buf_init(&made, 4 * TRK_YAML_BYTES_MAX);
    int rc = 0;
    if (trk_str_is_empty(text)) {
        rc = trk_yaml_dump(build->request.manifest, &made);
        text = made.data;
    }
    if (rc < 0) {
        rc = trk_err_set(err, TRK_TOO_LARGE, "the manifest is too large");
    } else if (unlinkat(build->folder_fd, "job.yaml", 0) < 0 && errno != ENOENT) {
        rc = trk_err_set(err, TRK_INVALID, "job.yaml in the job's folder must be a file");
    } else {
        trk_autoclose int fd = openat(build->folder_fd, "job.yaml",
                                      O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        rc = fd < 0 ? trk_err_errno(err, errno, "writing job.yaml")
                    : trk_write_all(fd, text, strlen(text), err);
    }
    trk_buf_fini(&made);
    return rc;
}

/* The original's wrapper mounts the web application of a class; the one here does not. */
static void look_for_webview(struct build *build)
{
    trk_autoclose int fd = -1;
    struct trk_buf buf;
    trk_buf_init(&buf, WEBVIEW_SOURCE_MAX);
    if (trk_open_beneath(build->folder_fd, build->python.entrypoint_path, O_RDONLY, 0, &fd, NULL) ==
            0 &&
        trk_buf_read_fd(&buf, fd, NULL) == 0 && strstr(buf.data, "def webview_app(") != NULL) {
        build_warn(build,
                   "%s: webview_app() is not served: return the page from auxiliary_endpoints_v2() "
                   "or static_endpoints()",
                   build->python.entrypoint_path);
    }
    trk_buf_fini(&buf);
}

int build_prepare_folder(struct build *build, struct trk_err *err)
{
    int rc = write_manifest(build, err);
    if (rc == 0) {
        rc = remove_secret_file(build, "secret_build_env_file", err);
    }
    if (rc == 0) {
        rc = remove_secret_file(build, "secret_runtime_env_file", err);
    }
    if (rc == 0) {
        rc = check_file(build, "entrypoint_path", build->python.entrypoint_path, err);
    }
    if (rc == 0) {
        look_for_webview(build);
    }
    if (rc == 0 && !trk_str_is_empty(build->python.requirements_path)) {
        rc = check_file(build, "requirements_path", build->python.requirements_path, err);
    }
    return rc;
}
