#include "client/job_ref.h"

#include <jansson.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/manifest/manifest.h"

static bool holds_manifest(const char *folder)
{
    trk_autofree char *job = trk_xasprintf("%s/job.yaml", folder);
    trk_autofree char *fatman = trk_xasprintf("%s/fatman.yaml", folder);
    return trk_path_exists(job) || trk_path_exists(fatman);
}

/* A name has no slash, and is seldom that of a folder with a manifest. */
static bool means_folder(const char *word)
{
    return strchr(word, '/') != NULL || strcmp(word, ".") == 0 || strcmp(word, "..") == 0 ||
           holds_manifest(word) ||
           ((trk_str_has_suffix(word, ".yaml") || trk_str_has_suffix(word, ".yml")) &&
            trk_path_exists(word));
}

static int from_folder(struct job_ref *ref, const struct cli *cli, struct trk_err *err)
{
    const char *folder = cli->word_count > 0 ? cli->words[0] : ".";
    trk_autofree struct trk_faults *warnings = trk_xcalloc(1, sizeof(*warnings));
    json_auto_t *manifest = NULL;
    int rc = trk_manifest_load(folder, NULL, &manifest, NULL, warnings, err);
    if (rc < 0) {
        (void)trk_err_wrap(err, "no job is named, and no manifest tells one");
        return trk_err_append(err,
                              "\n%s is read as a folder with a job.yaml; a job's name would be: "
                              "racetrack %s NAME",
                              folder, cli->command->name);
    }
    const char *version = cli->values[OPT_VERSION];
    ref->name = trk_xstrdup(trk_json_string_or(manifest, "name", ""));
    ref->version = trk_xstrdup(version != NULL ? version : trk_manifest_version(manifest));
    ref->reading = trk_xasprintf("%s is read as a folder, whose manifest names the job %s %s",
                                 folder, ref->name, ref->version);
    return 0;
}

static int from_name(struct job_ref *ref, struct cli *cli, const char *default_version,
                     struct trk_err *err)
{
    const char *name = cli->words[0];
    const char *version = cli->values[OPT_VERSION];
    if (version == NULL) {
        version = default_version;
    }
    if (version == NULL) {
        return cli_usage(cli, err,
                         "%s %s needs --version VERSION (%s is read as a job's name: there is no "
                         "folder %s with a job.yaml)",
                         cli->command->name, name, name, name);
    }
    ref->name = trk_xstrdup(name);
    ref->version = trk_xstrdup(version);
    ref->reading = trk_xasprintf(
        "%s is read as a job's name: there is no folder %s with a job.yaml", name, name);
    return 0;
}

int job_ref_of(struct job_ref *ref, struct cli *cli, const char *default_version,
               struct trk_err *err)
{
    *ref = (struct job_ref){.remote = cli->word_count > 1 ? cli->words[1] : NULL};
    return cli->word_count == 0 || means_folder(cli->words[0])
               ? from_folder(ref, cli, err)
               : from_name(ref, cli, default_version, err);
}

int job_ref_explain(const struct job_ref *ref, struct trk_err *err)
{
    return err->code == TRK_NOT_FOUND ? trk_err_append(err, "\n%s", ref->reading) : err->code;
}

void job_ref_fini(struct job_ref *ref)
{
    free(ref->name);
    free(ref->version);
    free(ref->reading);
    *ref = (struct job_ref){0};
}
