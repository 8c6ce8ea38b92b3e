#include "client/job_ref.h"

#include <jansson.h>

#include "libtrack/file.h"
#include "libtrack/json.h"
#include "libtrack/manifest.h"
#include "libtrack/mem.h"

static bool holds_manifest(const char *folder)
{
    trk_autofree char *job = trk_xasprintf("%s/job.yaml", folder);
    trk_autofree char *fatman = trk_xasprintf("%s/fatman.yaml", folder);
    return trk_path_exists(job) || trk_path_exists(fatman);
}

static bool means_folder(const struct cli *cli)
{
    if (cli->word_count != 1) {
        return true;
    }
    const char *word = cli->words[0];
    return strchr(word, '/') != NULL || strcmp(word, ".") == 0 || strcmp(word, "..") == 0 ||
           holds_manifest(word);
}

static int from_folder(struct job_ref *ref, const struct cli *cli, struct trk_err *err)
{
    const char *folder = cli->word_count > 0 ? cli->words[0] : ".";
    trk_autofree struct trk_faults *warnings = trk_xcalloc(1, sizeof(*warnings));
    json_auto_t *manifest = NULL;
    int rc = trk_manifest_load(folder, NULL, &manifest, NULL, warnings, err);
    if (rc < 0) {
        return trk_err_wrap(err, "no job is named, and no manifest tells one");
    }
    const char *version = cli->values[OPT_VERSION];
    ref->name = trk_xstrdup(trk_json_string_or(manifest, "name", ""));
    ref->version = trk_xstrdup(version != NULL ? version
                                               : trk_json_string_or(manifest, "version", "0.0.1"));
    ref->remote = cli->word_count > 1 ? cli->words[1] : NULL;
    return 0;
}

int job_ref_of(struct job_ref *ref, struct cli *cli, const char *default_version,
               struct trk_err *err)
{
    *ref = (struct job_ref){0};
    if (means_folder(cli)) {
        return from_folder(ref, cli, err);
    }
    const char *version = cli->values[OPT_VERSION];
    if (version == NULL) {
        version = default_version;
    }
    if (version == NULL) {
        return cli_usage(cli, err, "%s %s needs --version VERSION", cli->command->name,
                         cli->words[0]);
    }
    ref->name = trk_xstrdup(cli->words[0]);
    ref->version = trk_xstrdup(version);
    return 0;
}

void job_ref_fini(struct job_ref *ref)
{
    free(ref->name);
    free(ref->version);
    *ref = (struct job_ref){0};
}
