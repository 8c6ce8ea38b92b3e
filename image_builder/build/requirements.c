/* A job's requirements, installed by pip into a folder of their own, which becomes a layer. What
 * was installed before for the same input is taken from the cache: an unchanged file costs nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "image_builder/build/build.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/proc.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"

#define REQUIREMENTS_MAX BUILD_REQUIREMENTS_MAX
#define LEVEL            3 /* wheels are large and compressed already once: size buys little */

/* ---- the Python that jobs run on ---- */

static struct {
    char version[16];
    struct trk_err err;
    int rc;
} python;

static void ask_python(void)
{
    const char *const argv[] = {
        BUILD_PYTHON, "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2])", NULL};
    struct trk_proc_options options;
    trk_proc_options_init(&options);
    options.argv = argv;
    struct trk_buf output;
    trk_buf_init(&output, 4096);
    int status = -1;
    python.rc = trk_proc_run(&options, NULL, 0, 10000, &output, NULL, NULL, NULL, &status,
                             &python.err);
    if (python.rc == 0 && (status != 0 || output.len == 0)) {
        python.rc = trk_err_set(&python.err, TRK_UNAVAILABLE, BUILD_PYTHON " does not run: %s",
                                output.data);
    }
    (void)snprintf(python.version, sizeof(python.version), "%.*s",
                   (int)strcspn(output.data, "\r\n"), output.data);
    trk_buf_fini(&output);
}

int build_python_version(char out[16], struct trk_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, ask_python);
    if (python.rc < 0) {
        return trk_err_set(err, python.err.code, "%s", python.err.text);
    }
    memcpy(out, python.version, sizeof(python.version));
    return 0;
}

/* ---- the requirements file ---- */

static int read_requirements(struct build *build, struct trk_buf *ret, struct trk_err *err)
{
    trk_autoclose int fd = -1;
    int rc = trk_open_beneath(build->folder_fd, build->python.requirements_path, O_RDONLY, 0, &fd,
                              err);
    if (rc == 0) {
        rc = trk_buf_read_fd(ret, fd, err);
    }
    return rc < 0 ? trk_err_wrap(err, "requirements_path: %s", build->python.requirements_path) : 0;
}

/* Calls fn for each line that is no comment and not empty; true when one of them said true. */
static bool any_line(const char *text, bool (*fn)(const char *line, size_t len))
{
    for (const char *p = text; *p != '\0';) {
        size_t len = strcspn(p, "\n");
        size_t indent = strspn(p, " \t\r");
        if (indent < len && p[indent] != '#' && fn(p + indent, len - indent)) {
            return true;
        }
        p += len;
        p += *p == '\n';
    }
    return false;
}

static bool is_anything(const char *line, size_t len)
{
    (void)line;
    return len > 0;
}

/* Options (-r other.txt, -c, -e, -f) and paths make other files part of the input. pip takes any
 * word with a slash, and any archive, for a path when there is such a file; "name @ https://…" and
 * "git+https://…" are none. */
static bool is_local(const char *line, size_t len)
{
    static const char *const archives[] = {".whl", ".zip", ".tar", ".tgz", ".tbz", ".txz", ".tlz"};
    if (strchr("-.~", line[0]) != NULL || memmem(line, len, "file:", 5) != NULL ||
        memmem(line, len, "${", 2) != NULL) {
        return true;
    }
    const char *slash = memchr(line, '/', len);
    if (slash != NULL) {
        bool is_url = slash > line && slash[-1] == ':' && slash + 1 < line + len && slash[1] == '/';
        return !is_url;
    }
    for (size_t i = 0; i < TRK_COUNT(archives); i++) {
        if (memmem(line, len, archives[i], strlen(archives[i])) != NULL) {
            return true;
        }
    }
    return false;
}

/* Does the job itself say where pip takes things from? That may be a path in its folder. */
static bool has_pip_settings(const json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        if (trk_str_has_prefix(key, "PIP_")) {
            return true;
        }
    }
    return false;
}

/* ---- the cache's key ---- */

static int make_key(const struct build *build, const char *requirements, char out[TRK_DIGEST_SIZE],
                    struct trk_err *err)
{
    char version[16];
    int rc = build_python_version(version, err);
    if (rc < 0) {
        return rc;
    }
    TRK_ARGS_AUTO(settings);
    build_pip_settings(build, &settings);
    struct trk_sha256_ctx *sha = trk_sha256_new();
    trk_sha256_update(sha, "requirements 2", sizeof("requirements 2"));
    /* One family's packages run while they are built and can write into the pip cache of their
     * family: what comes out of it later is not for others. Equal layers are one blob anyway. */
    trk_sha256_update(sha, build->job_name, strlen(build->job_name) + 1);
    trk_sha256_update(sha, version, strlen(version) + 1);
    for (size_t i = 0; i < settings.count; i++) {
        trk_sha256_update(sha, settings.items[i], strlen(settings.items[i]) + 1);
    }
    trk_sha256_update(sha, requirements, strlen(requirements) + 1);
    if (any_line(requirements, is_local) ||
        has_pip_settings(json_object_get(build->request.manifest, "build_env")) ||
        has_pip_settings(build->request.secret_build_env)) {
        trk_sha256_update(sha, build->code.diff_id, sizeof(build->code.diff_id));
    }
    unsigned char sum[TRK_SHA256_SIZE];
    trk_sha256_final(sha, sum);
    trk_sha256_free(sha);
    trk_hex(sum, sizeof(sum), out);
    return 0;
}

/* ---- secrets ---- */

static __thread const struct build_secrets *looked_for;
static __thread char found_in[256];

static int look_into(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    if (type != FTW_F || st->st_size == 0) {
        return 0;
    }
    trk_autoclose int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    void *bytes = mmap(NULL, (size_t)st->st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) {
        return -1;
    }
    bool is_found = build_secrets_occur(looked_for, bytes, (size_t)st->st_size);
    (void)munmap(bytes, (size_t)st->st_size);
    if (is_found) {
        (void)snprintf(found_in, sizeof(found_in), "%s", path + ftw->base);
    }
    return is_found ? 1 : 0;
}

/* Whoever may pull the image can read its layers: a package that writes a build's secret down (in
 * its metadata, say) must not get into one. */
static int check_no_secret(const struct build *build, const char *target, struct trk_err *err)
{
    if (build->secrets.count == 0) {
        return 0;
    }
    looked_for = &build->secrets;
    found_in[0] = '\0';
    int rc = nftw(target, look_into, 16, FTW_PHYS);
    looked_for = NULL;
    if (rc < 0) {
        return trk_err_errno(err, errno, "looking through the installed packages");
    }
    return rc == 0 ? 0
                   : trk_err_set(err, TRK_INVALID,
                                 "installing the requirements wrote the value of a secret build "
                                 "variable into %s: it would be readable in the image",
                                 found_in);
}

/* ---- the layer ---- */

/* Packs the folder into a new layer, which is found by the key from now on. */
static int pack(struct build *build, const char *target, const char *key,
                struct trk_oci_descriptor *ret, struct trk_err *err)
{
    trk_autoclose int fd = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct depot_layer *layer = NULL;
    if (fd < 0) {
        return trk_err_errno(err, errno, "opening %s", target);
    }
    int rc = depot_layer_new(build->ib->depot, &layer, err);
    rc = rc == 0 ? trk_oci_layer_write(fd, "src/packages", depot_layer_fd(layer), LEVEL, ret, err)
                 : rc;
    rc = rc == 0 ? depot_layer_put(layer, key, ret, err) : rc;
    depot_layer_free(layer);
    return rc < 0 ? trk_err_wrap(err, "packing the requirements") : 0;
}

/* pip's own cache is one per job family: what one family's packages write there must not be run by
 * another's. */
static char *pip_cache_folder(const struct build *build)
{
    char digest[TRK_DIGEST_SIZE];
    trk_digest(build->job_name, strlen(build->job_name), digest);
    return trk_xasprintf("%s/%.16s", build->ib->pip_cache_dir, digest + 7);
}

static int install(struct build *build, const char *requirements, const char *key,
                   struct trk_oci_descriptor *ret, struct trk_err *err)
{
    trk_autofree char *target = trk_xasprintf("%s/packages", build->workspace);
    trk_autofree char *cache = pip_cache_folder(build);
    int rc = build_run_pip(build, requirements, target, cache, err);
    if (rc == 0) {
        rc = check_no_secret(build, target, err);
    }
    if (rc == 0) {
        rc = pack(build, target, key, ret, err);
    }
    return rc;
}

static int add_layer(struct build *build, const char *requirements, struct trk_err *err)
{
    char key[TRK_DIGEST_SIZE];
    int rc = make_key(build, requirements, key, err);
    if (rc < 0) {
        return rc;
    }
    struct trk_oci_descriptor layer;
    bool is_cached = !build->request.no_cache && depot_layer_find(build->ib->depot, key, &layer);
    if (is_cached) {
        build_log_printf(build->log, "Requirements: unchanged, taken from the cache (%s)",
                         layer.digest);
    } else {
        build_log_printf(build->log, "Installing %s", build->python.requirements_path);
        build_log_begin_step(build->log);
        rc = install(build, requirements, key, &layer, err);
    }
    if (rc == 0) {
        build->dependencies = layer;
        (void)snprintf(build->dependencies.role, sizeof(build->dependencies.role), "dependencies");
    }
    return rc;
}

int build_add_requirements(struct build *build, struct trk_err *err)
{
    if (trk_str_is_empty(build->python.requirements_path)) {
        return 0;
    }
    struct trk_buf text;
    trk_buf_init(&text, REQUIREMENTS_MAX);
    int rc = read_requirements(build, &text, err);
    if (rc == 0 && memchr(text.data, '\0', text.len) != NULL) {
        rc = trk_err_set(err, TRK_INVALID, "requirements_path: %s is not a text file",
                         build->python.requirements_path);
    }
    if (rc == 0 && any_line(text.data, is_anything)) {
        rc = add_layer(build, text.data, err);
    }
    trk_buf_fini(&text);
    return rc;
}
