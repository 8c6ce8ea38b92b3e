/* Image configuration and manifest: image-spec 1.1, config.md and manifest.md. */
#include <string.h>
#include <sys/utsname.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/oci/oci.h"

#define ROLE_ANNOTATION "io.racetrack.layer"
#define MANIFEST_MAX    (4 << 20)

static const char *architecture(void)
{
    static const char *const names[][2] = {
        {"x86_64", "amd64"}, {"aarch64", "arm64"}, {"armv7l", "arm"}, {"i686", "386"}};
    struct utsname u;
    if (uname(&u) == 0) {
        for (size_t i = 0; i < TRK_COUNT(names); i++) {
            if (strcmp(u.machine, names[i][0]) == 0) {
                return names[i][1];
            }
        }
    }
    return "amd64";
}

static json_t *list_of(const char *const *items)
{
    json_t *list = json_array();
    for (; items != NULL && *items != NULL; items++) {
        json_t *item = json_string(*items);
        if (item == NULL) { /* not UTF-8 */
            json_decref(list);
            return NULL;
        }
        (void)json_array_append_new(list, item);
    }
    return list;
}

static char *dump(const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
    if (text == NULL) {
        trk_die("dumping an image's JSON failed");
    }
    return text;
}

static int make_config(const struct trk_oci_image_spec *spec, char **ret, struct trk_err *err)
{
    json_t *env = list_of(spec->env);
    json_t *entrypoint = list_of(spec->entrypoint);
    if (env == NULL || entrypoint == NULL) {
        json_decref(env);
        json_decref(entrypoint);
        return trk_err_set(err, TRK_INVALID, "the image's settings are not valid UTF-8");
    }
    json_t *run = json_object();
    (void)json_object_set_new(run, "Env", env);
    (void)json_object_set_new(run, "Entrypoint", entrypoint);
    if (spec->working_dir != NULL) {
        (void)json_object_set_new(run, "WorkingDir", json_string(spec->working_dir));
    }
    if (spec->exposed_port != NULL) {
        (void)json_object_set_new(run, "ExposedPorts", json_pack("{s:{}}", spec->exposed_port));
    }
    if (spec->labels != NULL) {
        (void)json_object_set_new(run, "Labels", json_deep_copy(spec->labels));
    }
    json_t *diff_ids = json_array();
    for (size_t i = 0; i < spec->layer_count; i++) {
        (void)json_array_append_new(diff_ids, json_string(spec->layers[i].diff_id));
    }
    json_auto_t *config = json_pack("{s:s, s:s, s:o, s:{s:s, s:o}}", "architecture", architecture(),
                                    "os", "linux", "config", run, "rootfs", "type", "layers",
                                    "diff_ids", diff_ids);
    if (config == NULL) {
        return trk_err_set(err, TRK_INVALID, "the image's settings are not valid UTF-8");
    }
    *ret = dump(config);
    return 0;
}

static json_t *descriptor_json(const struct trk_oci_descriptor *d)
{
    json_t *json = json_pack("{s:s, s:s, s:I}", "mediaType", d->media_type, "digest", d->digest,
                             "size", (json_int_t)d->size_bytes);
    if (json != NULL && d->role[0] != '\0') {
        (void)json_object_set_new(json, "annotations",
                                  json_pack("{s:s}", ROLE_ANNOTATION, d->role));
    }
    return json;
}

int trk_oci_image_make(const struct trk_oci_image_spec *spec, char **ret_config,
                       char **ret_manifest, struct trk_err *err)
{
    for (size_t i = 0; i < spec->layer_count; i++) {
        trk_assert(trk_digest_is_valid(spec->layers[i].digest));
        trk_assert(trk_digest_is_valid(spec->layers[i].diff_id));
    }
    trk_autofree char *config = NULL;
    int rc = make_config(spec, &config, err);
    if (rc < 0) {
        return rc;
    }
    struct trk_oci_descriptor d = {.media_type = TRK_OCI_CONFIG_TYPE,
                                   .size_bytes = (int64_t)strlen(config)};
    trk_digest(config, strlen(config), d.digest);
    json_t *layers = json_array();
    for (size_t i = 0; i < spec->layer_count; i++) {
        (void)json_array_append_new(layers, descriptor_json(&spec->layers[i]));
    }
    json_auto_t *manifest = json_pack("{s:i, s:s, s:o, s:o}", "schemaVersion", 2, "mediaType",
                                      TRK_OCI_MANIFEST_TYPE, "config", descriptor_json(&d),
                                      "layers", layers);
    trk_assert(manifest != NULL);
    *ret_manifest = dump(manifest);
    *ret_config = TRK_STEAL(config);
    return 0;
}

static int bad(const char *what, const char *why, struct trk_err *err)
{
    return trk_err_set(err, TRK_INVALID, "image manifest: %s %s", what, why);
}

static int read_descriptor(const json_t *json, const char *what, struct trk_oci_descriptor *ret,
                           struct trk_err *err)
{
    const char *media_type = json_string_value(json_object_get(json, "mediaType"));
    const char *digest = json_string_value(json_object_get(json, "digest"));
    const json_t *size = json_object_get(json, "size");
    const char *role = trk_json_string_or(json_object_get(json, "annotations"), ROLE_ANNOTATION,
                                          "");
    if (!json_is_object(json)) {
        return bad(what, "must be an object", err);
    }
    if (media_type == NULL || strlen(media_type) >= sizeof(ret->media_type)) {
        return bad(what, "needs a mediaType", err);
    }
    if (digest == NULL || !trk_digest_is_valid(digest)) {
        return bad(what, "needs a digest (sha256:…)", err);
    }
    if (!json_is_integer(size) || json_integer_value(size) < 0) {
        return bad(what, "needs a size", err);
    }
    *ret = (struct trk_oci_descriptor){.size_bytes = json_integer_value(size)};
    (void)snprintf(ret->media_type, sizeof(ret->media_type), "%s", media_type);
    (void)snprintf(ret->digest, sizeof(ret->digest), "%s", digest);
    if (strlen(role) < sizeof(ret->role)) {
        (void)snprintf(ret->role, sizeof(ret->role), "%s", role);
    }
    return 0;
}

int trk_oci_manifest_parse(const char *bytes, size_t len, struct trk_oci_image *ret,
                           struct trk_err *err)
{
    if (len > MANIFEST_MAX) {
        return trk_err_set(err, TRK_TOO_LARGE, "image manifest: larger than 4 MiB");
    }
    json_auto_t *json = NULL;
    int rc = trk_json_parse(bytes, len, &json, err);
    if (rc < 0) {
        return trk_err_wrap(err, "image manifest");
    }
    if (!json_is_object(json) || trk_json_int_or(json, "schemaVersion", 0) != 2) {
        return bad("schemaVersion", "must be 2", err);
    }
    const json_t *list = json_object_get(json, "manifests");
    bool is_index = list != NULL;
    if (is_index == (json_object_get(json, "layers") != NULL)) {
        return bad("the document", "must have either layers or manifests", err);
    }
    trk_autofree struct trk_oci_image *image = trk_xcalloc(1, sizeof(*image));
    if (!is_index) {
        list = json_object_get(json, "layers");
        rc = read_descriptor(json_object_get(json, "config"), "config", &image->config, err);
        if (rc < 0) {
            return rc;
        }
    }
    if (!json_is_array(list) || json_array_size(list) > TRK_COUNT(image->layers)) {
        return bad(is_index ? "manifests" : "layers", "must be a list of at most 64", err);
    }
    for (; image->layer_count < json_array_size(list); image->layer_count++) {
        char what[32];
        (void)snprintf(what, sizeof(what), "%s[%zu]", is_index ? "manifests" : "layers",
                       image->layer_count);
        rc = read_descriptor(json_array_get(list, image->layer_count), what,
                             &image->layers[image->layer_count], err);
        if (rc < 0) {
            return rc;
        }
    }
    *ret = *image;
    return 0;
}
