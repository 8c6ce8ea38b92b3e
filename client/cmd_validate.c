#include <stdio.h>

#include "client/cli.h"
#include "client/manifest_input.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/yaml.h"
#include "libtrack/manifest/manifest.h"

int cmd_validate(struct cli *cli, struct trk_err *err)
{
    struct manifest_input input;
    int rc = manifest_input_load(&input, cli, cli->word_count > 0 ? cli->words[0] : ".", err);
    if (rc < 0) {
        return rc;
    }
    if (!json_is_string(json_object_get(input.manifest, "version"))) {
        (void)json_object_set_new(input.manifest, "version", json_string(TRK_MANIFEST_VERSION));
    }
    struct trk_buf buf;
    trk_buf_init(&buf, 2 * TRK_YAML_BYTES_MAX);
    rc = trk_yaml_dump(input.manifest, &buf);
    if (rc < 0) {
        rc = trk_err_set(err, TRK_TOO_LARGE, "the manifest is too large to print");
    } else {
        (void)fprintf(stderr, "%s is valid\n", input.source);
        (void)fwrite(buf.data, 1, buf.len, stdout);
    }
    trk_buf_fini(&buf);
    manifest_input_fini(&input);
    return rc;
}
