/* Manifests: whatever is accepted can be shown, asked for its job type, named, and is accepted
 * again when it is written and read. */
#include <stdint.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/data/yaml.h"
#include "libtrack/manifest/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_accepted(const json_t *manifest)
{
    struct trk_buf buf;
    struct trk_err err = {0};
    struct trk_python_spec spec;
    const char *name = trk_json_string_or(manifest, "name", NULL);
    trk_assert(name != NULL);
    json_auto_t *full = trk_manifest_full(manifest);
    const char *version = trk_json_string_or(full, "version", NULL);
    const char *type, *type_version;
    trk_assert(version != NULL);
    if (trk_manifest_job_type(manifest, &type, &type_version, &err) == 0) {
        trk_assert(trk_manifest_python(manifest, &spec, &err) == 0);
        trk_assert(spec.entrypoint_path[0] != '/');
    }
    trk_buf_init(&buf, 1 << 20);
    trk_assert(trk_manifest_resource_name(name, version, &buf) == 0);
    trk_assert(buf.len > 0 && buf.len <= 63);
    trk_buf_reset(&buf);
    if (trk_yaml_dump(full, &buf) == 0 && buf.len <= TRK_YAML_BYTES_MAX) {
        json_auto_t *again = NULL;
        if (trk_manifest_parse(buf.data, buf.len, "written", &again, &err) < 0) {
            trk_die("the full manifest is refused: %s\n%s", err.text, buf.data);
        }
    }
    trk_buf_fini(&buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_auto_t *manifest = NULL;
    struct trk_err err = {0};
    if (trk_manifest_parse((const char *)data, size, "job.yaml", &manifest, &err) == 0) {
        check_accepted(manifest);
    } else {
        trk_assert(err.code == TRK_INVALID || err.code == TRK_SCHEMA);
        json_auto_t *text = json_string(err.text);
        trk_assert(text != NULL); /* the error can be sent as JSON */
    }
    return 0;
}
