#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/base/tree.h"
#include "libtrack/data/json.h"
#include "libtrack/oci/oci.h"
#include "lifecycle/infra/process/internal.h"

enum { MEMORY_BLOB_MAX = 16 << 20, LAYER_IDLE_S = 24 * 3600 };

/* Idle clients are kept: their connections to the image store stay open. */
static struct trk_http_client *client_take(struct process_target *p)
{
    struct trk_http_client *client = NULL;
    pthread_mutex_lock(&p->mutex);
    if (p->client_count > 0) {
        client = p->clients[--p->client_count];
    }
    pthread_mutex_unlock(&p->mutex);
    return client != NULL ? client : trk_http_client_new();
}

static void client_give(struct process_target *p, struct trk_http_client *client)
{
    pthread_mutex_lock(&p->mutex);
    if (p->client_count < TRK_COUNT(p->clients)) {
        p->clients[p->client_count++] = client;
        client = NULL;
    }
    pthread_mutex_unlock(&p->mutex);
    trk_http_client_free(client);
}

/* One image being fetched. */
struct fetch {
    struct process_target *p;
    struct trk_http_client *client;
    struct trk_oci_ref ref;
};

/* Other things may be missing here, too: what the image store lacks is told apart. */
static int gone_if_missing(int rc, struct trk_err *err)
{
    return rc == TRK_NOT_FOUND ? trk_err_set(err, TRK_GONE, "the image store does not have it")
                               : rc;
}

static int fetch_blob(struct fetch *f, const struct trk_oci_descriptor *blob, int *ret_fd,
                      struct trk_err *err)
{
    trk_autoclose int fd = blob->size_bytes <= MEMORY_BLOB_MAX
                               ? memfd_create("layer", MFD_CLOEXEC)
                               : open(f->p->jobs_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        return trk_err_errno(err, errno, "making a file for a layer in %s", f->p->jobs_dir);
    }
    int rc = gone_if_missing(trk_registry_blob(f->client, f->p->image_store_url, f->p->token,
                                               f->ref.repository, blob->digest, fd, err),
                             err);
    if (rc == 0 && lseek(fd, 0, SEEK_SET) < 0) {
        rc = trk_err_errno(err, errno, "reading a layer");
    }
    if (rc == 0) {
        *ret_fd = TRK_STEAL_FD(fd);
    }
    return rc;
}

static int unpack_layer(struct fetch *f, const struct trk_oci_descriptor *layer, const char *dir,
                        struct trk_err *err)
{
    trk_autoclose int blob_fd = -1;
    trk_autoclose int dir_fd = -1;
    int rc = fetch_blob(f, layer, &blob_fd, err);
    if (rc == 0 && trk_mkdir_p(dir, 0755, err) < 0) {
        rc = err->code;
    }
    if (rc == 0) {
        dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        rc = dir_fd >= 0 ? trk_unpack(NULL, 0, blob_fd, dir_fd, NULL, &trk_layer_limits, err)
                         : trk_err_errno(err, errno, "opening %s", dir);
    }
    return rc < 0 ? trk_err_wrap(err, "unpacking layer %s", layer->digest) : 0;
}

/* A layer that jobs share, read-only: unpacked beside, synced, and renamed into place, so that it
 * is there whole or not at all. */
static int share_layer(struct fetch *f, const struct trk_oci_descriptor *layer, const char *path,
                       struct trk_err *err)
{
    char uuid[TRK_UUID_SIZE];
    trk_uuid4(uuid);
    trk_autofree char *temporary = trk_xasprintf("%s/.new-%s", f->p->layers_dir, uuid);
    int rc = unpack_layer(f, layer, temporary, err);
    if (rc == 0) {
        trk_autoclose int fd = open(temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || syncfs(fd) < 0) {
            rc = trk_err_errno(err, errno, "writing %s", temporary);
        }
    }
    if (rc == 0 && rename(temporary, path) < 0 && errno != EEXIST && errno != ENOTEMPTY) {
        rc = trk_err_errno(err, errno, "renaming %s to %s", temporary, path);
    }
    if (trk_path_exists(temporary)) {
        may_fail(trk_rm_rf(temporary, NULL));
    }
    return rc;
}

static int fetch_dependencies(struct fetch *f, const struct trk_oci_descriptor *layer, json_t *doc,
                              struct trk_err *err)
{
    const char *hex = strchr(layer->digest, ':') + 1;
    trk_autofree char *path = trk_xasprintf("%s/%s", f->p->layers_dir, hex);
    if (!trk_path_exists(path)) {
        int rc = share_layer(f, layer, path, err);
        if (rc < 0) {
            return rc;
        }
    } else {
        (void)utimensat(AT_FDCWD, path, NULL, 0); /* used just now */
    }
    trk_autofree char *packages = trk_xasprintf("%s%s", path, JOB_PACKAGES_DIR);
    workload_set_text(doc, "packages", packages);
    workload_set_text(doc, "layer", hex);
    return 0;
}

/* The entrypoint of the image's config without its first word (our wrapper stands for it). */
static int read_entrypoint(const json_t *config, json_t *doc, struct trk_err *err)
{
    const json_t *entrypoint = json_object_get(config, "Entrypoint");
    json_t *argv = json_array();
    for (size_t i = 0; i < json_array_size(entrypoint); i++) {
        const char *word = json_string_value(json_array_get(entrypoint, i));
        if (word == NULL || (i == 0 && strcmp(word, "job_wrapper") != 0 &&
                             !trk_str_has_suffix(word, "/job_wrapper"))) {
            json_decref(argv);
            return trk_err_set(err, TRK_INVALID,
                               "the image's entrypoint is not the job wrapper; the process target "
                               "runs only images that Racetrack assembled");
        }
        if (i > 0) {
            (void)json_array_append_new(argv, json_string(word));
        }
    }
    (void)json_object_set_new(doc, "argv", argv);
    return json_array_size(argv) > 0 ? 0
                                     : trk_err_set(err, TRK_INVALID, "the image has no entrypoint");
}

/* The image's environment (GIT_VERSION): what the job gets unless it is given something else. */
static int read_env(const json_t *config, json_t *doc, struct trk_err *err)
{
    const json_t *list = json_object_get(config, "Env");
    json_t *env = json_array();
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *entry = json_string_value(json_array_get(list, i));
        if (entry == NULL || entry[0] == '=' || strchr(entry, '=') == NULL) {
            json_decref(env);
            return trk_err_set(err, TRK_INVALID,
                               "the image's environment is not a list of NAME=value");
        }
        (void)json_array_append_new(env, json_string(entry));
    }
    (void)json_object_set_new(doc, "image_env", env);
    return 0;
}

static int read_config(struct fetch *f, const struct trk_oci_descriptor *config, json_t *doc,
                       struct trk_err *err)
{
    trk_autoclose int fd = -1;
    int rc = fetch_blob(f, config, &fd, err);
    if (rc < 0) {
        return trk_err_wrap(err, "reading the image's configuration");
    }
    struct trk_buf buf;
    json_auto_t *value = NULL;
    trk_buf_init(&buf, 4 << 20);
    rc = trk_buf_read_fd(&buf, fd, err);
    if (rc == 0) {
        rc = trk_json_parse(buf.data, buf.len, &value, err);
    }
    trk_buf_fini(&buf);
    if (rc < 0) {
        return trk_err_wrap(err, "reading the image's configuration");
    }
    const json_t *inner = json_object_get(value, "config");
    rc = read_entrypoint(inner, doc, err);
    return rc == 0 ? read_env(inner, doc, err) : rc;
}

static int fetch_code(struct fetch *f, const struct trk_oci_descriptor *layer, const char *id,
                      json_t *doc, struct trk_err *err)
{
    struct trk_tree_usage usage = {0};
    trk_autofree char *dir = workload_path(f->p, id, NULL);
    trk_autofree char *code = workload_path(f->p, id, "src/job");
    if (unpack_layer(f, layer, dir, err) < 0 || trk_mkdir_p(code, 0755, err) < 0) {
        return err->code;
    }
    if (trk_tree_measure(code, &usage, err) < 0) {
        return err->code;
    }
    workload_set_int(doc, "code_bytes", (int64_t)usage.bytes);
    /* The code belongs to the job's user: it may write where it stands, as in a container. */
    return f->p->change_user ? trk_tree_chown(code, f->p->uid, f->p->gid, err) : 0;
}

static int fetch_layers(struct fetch *f, const struct infra_generation_spec *spec, json_t *doc,
                        struct trk_err *err)
{
    trk_autofree char *manifest = NULL;
    size_t len;
    char digest[TRK_DIGEST_SIZE];
    int rc = trk_registry_manifest(f->client, f->p->image_store_url, f->p->token, f->ref.repository,
                                   spec->image_digest, &manifest, &len, digest, err);
    if (rc < 0) {
        return gone_if_missing(rc, err);
    }
    trk_autofree struct trk_oci_image *image = trk_xcalloc(1, sizeof(*image));
    if (trk_oci_manifest_parse(manifest, len, image, err) < 0 ||
        read_config(f, &image->config, doc, err) < 0) {
        return err->code;
    }
    bool has_code = false;
    for (size_t i = 0; i < image->layer_count; i++) {
        const struct trk_oci_descriptor *layer = &image->layers[i];
        if (strcmp(layer->role, "dependencies") == 0) {
            if (fetch_dependencies(f, layer, doc, err) < 0) {
                return err->code;
            }
        } else if (strcmp(layer->role, "code") == 0) {
            if (fetch_code(f, layer, spec->generation_id, doc, err) < 0) {
                return err->code;
            }
            has_code = true;
        } else if (strcmp(layer->role, "base") != 0) {
            return trk_err_set(err, TRK_INVALID,
                               "layer %s is of no known kind; the process target runs only images "
                               "that Racetrack assembled",
                               layer->digest);
        }
    }
    return has_code ? 0 : trk_err_set(err, TRK_INVALID, "the image has no code layer");
}

int process_image_fetch(struct process_target *p, const struct infra_generation_spec *spec,
                        json_t *doc, struct trk_err *err)
{
    struct fetch fetch = {.p = p};
    if (trk_oci_ref_parse(spec->image_name, &fetch.ref, err) < 0) {
        return trk_err_wrap(err, "fetching image %s", spec->image_name);
    }
    /* While layers are being taken into use, none is collected. */
    trk_autofree char *lock_path = trk_xasprintf("%s/.lock", p->layers_dir);
    trk_autoclose int lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock_fd < 0 || flock(lock_fd, LOCK_SH) < 0) {
        return trk_err_errno(err, errno, "locking %s", lock_path);
    }
    fetch.client = client_take(p);
    int rc = fetch_layers(&fetch, spec, doc, err);
    client_give(p, fetch.client);
    return rc < 0 ? trk_err_wrap(err, "fetching image %s", spec->image_name) : 0;
}

static bool is_used(const struct process_target *p, const char *layer, char (*ids)[40],
                    size_t count)
{
    for (size_t i = 0; i < count; i++) {
        json_auto_t *doc = NULL;
        int rc = workload_load(p, ids[i], &doc, NULL);
        if (rc == 0 ? strcmp(workload_text(doc, "layer"), layer) == 0 : rc != TRK_NOT_FOUND) {
            return true; /* a document that cannot be read may use anything */
        }
    }
    return false;
}

void process_layers_collect(struct process_target *p)
{
    trk_autofree char *lock_path = trk_xasprintf("%s/.lock", p->layers_dir);
    trk_autoclose int lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    trk_autofree char(*ids)[40] = NULL;
    size_t count;
    if (lock_fd < 0 || flock(lock_fd, LOCK_EX | LOCK_NB) < 0 ||
        workload_ids(p, &ids, &count, NULL) < 0) {
        return;
    }
    DIR *dir = opendir(p->layers_dir);
    if (dir == NULL) {
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        struct stat st;
        bool is_left_over = trk_str_has_prefix(entry->d_name, ".new-");
        if ((entry->d_name[0] == '.' && !is_left_over) ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            continue;
        }
        bool is_old = st.st_mtime + LAYER_IDLE_S < trk_wall_s();
        if (is_left_over || (is_old && !is_used(p, entry->d_name, ids, count))) {
            trk_autofree char *path = trk_xasprintf("%s/%s", p->layers_dir, entry->d_name);
            struct trk_err err = {0};
            if (trk_rm_rf(path, &err) < 0) {
                trk_log_warn("an unused layer cannot be removed", "error", err.text, NULL);
            }
        }
    }
    (void)closedir(dir);
}
