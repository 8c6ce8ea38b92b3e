#include "image_builder/standalone.h"

#include "image_builder/build/build.h"
#include "image_builder/service.h"
#include "image_builder/store/store.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/manifest/manifest.h"
#include "libtrack/source/pack.h"
#include "libtrack/source/secret_file.h"

#define DEPLOYMENT "local"

struct standalone {
    struct image_builder *ib;
    json_t *manifest, *secrets;
    char *manifest_path;
    char source_digest[TRK_DIGEST_SIZE], tag[32];
};

static void print_line(void *ctx, const char *line)
{
    (void)ctx;
    (void)puts(line);
}

static int load(struct standalone *s, const char *folder, struct trk_err *err)
{
    trk_autofree struct trk_faults *warnings = trk_xcalloc(1, sizeof(*warnings));
    int rc = trk_manifest_load(folder, NULL, &s->manifest, &s->manifest_path, warnings, err);
    for (size_t i = 0; i < warnings->count && i < TRK_FAULTS_MAX; i++) {
        (void)printf("Warning: %s: %s\n", warnings->list[i].path, warnings->list[i].text);
    }
    const char *file = trk_json_string_or(s->manifest, "secret_build_env_file", NULL);
    if (rc == 0 && file != NULL) {
        rc = trk_secret_file_read(folder, file, &s->secrets, err);
    }
    return rc;
}

static int store_source(struct standalone *s, const char *folder, struct trk_err *err)
{
    STORE_TEMP_AUTO(temp) = NULL;
    struct trk_oci_descriptor packed;
    int rc = store_temp_new(s->ib->sources, &temp, err);
    rc = rc == 0 ? trk_source_pack(folder, s->manifest, 0, store_temp_fd(temp), &packed, NULL, err)
                 : rc;
    rc = rc == 0 ? store_temp_commit_as(temp, packed.digest, packed.size_bytes, err) : rc;
    if (rc == 0) {
        memcpy(s->source_digest, packed.digest, sizeof(packed.digest));
    }
    return rc;
}

static int run(struct standalone *s, struct trk_err *err)
{
    struct build build;
    trk_autofree char *log = trk_xasprintf("%s/" DEPLOYMENT ".log", s->ib->logs_dir);
    trk_format_utc(trk_wall_s(), "%Y-%m-%dT%H%M%S", s->tag, sizeof(s->tag));
    build_init(&build);
    build.ib = s->ib;
    build.request = (struct build_request){.manifest = s->manifest,
                                           .secret_build_env = s->secrets,
                                           .tag = s->tag,
                                           .source_digest = s->source_digest,
                                           .deployment_id = DEPLOYMENT};
    int rc = build_log_open(log, (size_t)s->ib->config->build_log_max_bytes, &build.secrets,
                            print_line, NULL, &build.log, err);
    rc = rc == 0 ? build_run(&build, err) : rc;
    build_log_close(build.log);
    if (rc == 0) {
        const char *state = s->ib->config->state_dir;
        (void)printf("The image lies in %s/images; to serve it as a registry: "
                     "RACETRACK_STATE='%s' image_builder\n",
                     state, state);
    }
    build_fini(&build);
    return rc;
}

int standalone_build(struct builder_config *config, const char *folder, struct trk_err *err)
{
    struct standalone s = {0};
    struct service *service = NULL;
    int rc = load(&s, folder, err);
    rc = rc == 0 ? service_open(config, 0, &service, err) : rc;
    if (rc == 0) {
        s.ib = service_builder(service);
        rc = store_source(&s, folder, err);
        rc = rc == 0 ? run(&s, err) : rc;
        service_stop(service);
    }
    json_decref(s.manifest);
    json_decref(s.secrets);
    free(s.manifest_path);
    return rc;
}
