/* Which layer came out of which requirements: a small file per key below cache/requirements. An
 * entry whose blob is gone or damaged is as good as none. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "image_builder/store/internal.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

#define ENTRY_MAX 4096

static char *entry_path(const struct store *store, const char *key)
{
    return store_path(store, "cache/requirements/%s", key);
}

static int read_entry(const char *path, struct trk_oci_descriptor *ret, struct trk_err *err)
{
    trk_autofree char *text = NULL;
    size_t len;
    json_auto_t *json = NULL;
    const char *digest, *diff_id;
    int64_t size;
    int rc = trk_file_read(path, ENTRY_MAX, &text, &len, err);
    if (rc == 0) {
        rc = trk_json_parse(text, len, &json, err);
    }
    if (rc < 0 || (rc = trk_json_string(json, "digest", &digest, err)) < 0 ||
        (rc = trk_json_string(json, "diff_id", &diff_id, err)) < 0 ||
        (rc = trk_json_int(json, "size", &size, err)) < 0) {
        return rc;
    }
    if (!trk_digest_is_valid(digest) || !trk_digest_is_valid(diff_id)) {
        return trk_err_set(err, TRK_INVALID, "%s holds no digest", path);
    }
    *ret = (struct trk_oci_descriptor){.media_type = TRK_OCI_LAYER_TYPE, .size_bytes = size};
    (void)snprintf(ret->digest, sizeof(ret->digest), "%s", digest);
    (void)snprintf(ret->diff_id, sizeof(ret->diff_id), "%s", diff_id);
    return 0;
}

bool store_cache_get(struct store *store, const char *key, struct trk_oci_descriptor *ret)
{
    trk_autofree char *path = entry_path(store, key);
    struct trk_err err = {0};
    struct trk_oci_descriptor layer;
    int64_t size;
    int rc = read_entry(path, &layer, &err);
    if (rc < 0) {
        if (rc != TRK_NOT_FOUND) {
            trk_log_warn("an entry of the build cache is of no use", "error", err.text, NULL);
        }
        return false;
    }
    if (!store_blob_has(store, layer.digest, &size) || size != layer.size_bytes) {
        return false;
    }
    (void)utimensat(AT_FDCWD, path, NULL, 0); /* last used now */
    *ret = layer;
    return true;
}

int store_cache_put(struct store *store, const char *key, const struct trk_oci_descriptor *layer,
                    struct trk_err *err)
{
    trk_autofree char *path = entry_path(store, key);
    json_auto_t *json = json_pack("{s:s, s:s, s:I}", "digest", layer->digest, "diff_id",
                                  layer->diff_id, "size", (json_int_t)layer->size_bytes);
    trk_autofree char *text = trk_json_text(json);
    return store_write_file(store, path, text, strlen(text), err);
}

int store_cache_prune(struct store *store, int64_t hours, json_t **ret_roots, struct trk_err *err)
{
    trk_autofree char *folder = store_path(store, "cache/requirements");
    json_auto_t *names = NULL;
    json_auto_t *roots = json_array();
    int rc = store_list(folder, &names, err);
    if (rc < 0) {
        return rc;
    }
    int64_t before_s = trk_wall_s() - hours * 3600;
    size_t i;
    json_t *name;
    json_array_foreach (names, i, name) {
        trk_autofree char *path = entry_path(store, json_string_value(name));
        struct stat st;
        struct trk_oci_descriptor layer;
        struct trk_err ignored = {0};
        if (stat(path, &st) < 0) {
            continue;
        }
        if (read_entry(path, &layer, &ignored) < 0 || (hours > 0 && st.st_mtime < before_s)) {
            (void)unlink(path);
        } else {
            (void)json_array_append_new(roots, json_string(layer.digest));
        }
    }
    *ret_roots = TRK_STEAL(roots);
    return 0;
}
