/* image_builder: builds jobs' images, keeps them, serves them as a registry. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "image_builder/service.h"
#include "image_builder/standalone.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/service.h"

/* Sandboxes and pip need it absolute. */
static int make_state_absolute(struct builder_config *config, struct trk_err *err)
{
    if (trk_mkdir_p(config->state_dir, 0755, err) < 0) {
        return err->code;
    }
    char *path = realpath(config->state_dir, NULL);
    if (path == NULL) {
        return trk_err_errno(err, errno, "state folder %s", config->state_dir);
    }
    free(config->state_dir);
    config->state_dir = path;
    return 0;
}

static int serve(struct builder_config *config, struct trk_err *err)
{
    sigset_t signals;
    struct service *service;
    (void)umask(022);
    trk_service_block_signals(&signals);
    if (make_state_absolute(config, err) < 0 || service_start(config, &service, err) < 0) {
        return err->code;
    }
    int rc = trk_service_announce("image_builder", config->state_dir, config->http_addr,
                                  service_port(service), err);
    if (rc == 0) {
        (void)trk_service_wait("image_builder", &signals, -1);
    }
    service_stop(service);
    return rc;
}

/* Where a build without a service keeps its images when nobody says where: not in the job's folder,
 * which would be packed with them. */
static void choose_state(void)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (getenv("RACETRACK_STATE") == NULL && (cache != NULL || home != NULL)) {
        trk_autofree char *path = cache != NULL ? trk_xasprintf("%s/racetrack", cache)
                                                : trk_xasprintf("%s/.cache/racetrack", home);
        (void)setenv("RACETRACK_STATE", path, 1);
    }
}

static int build(struct builder_config *config, int argc, char **argv, struct trk_err *err)
{
    const char *folder = argc > 2 ? argv[2] : ".";
    (void)umask(022);
    if (argc > 3 || folder[0] == '-') {
        return trk_err_set(err, TRK_INVALID, "usage: image_builder build [FOLDER]");
    }
    int rc = make_state_absolute(config, err);
    return rc < 0 ? rc : standalone_build(config, folder, err);
}

int main(int argc, char **argv)
{
    struct builder_config config = {0};
    struct trk_err err = {0};
    int exit_code = 0;
    bool is_build = argc > 1 && strcmp(argv[1], "build") == 0;
    if (is_build) {
        choose_state();
    } else if (argc > 1 && argv[1][0] != '-') {
        (void)fprintf(stderr, "usage: image_builder [--help | build [FOLDER]]\n");
        return 2;
    }
    if (trk_service_main(&builder_config_table, &config, argc, argv, &exit_code)) {
        return exit_code;
    }
    if (is_build) {
        if (build(&config, argc, argv, &err) < 0) {
            (void)fprintf(stderr, "error: %s\n", err.text);
            exit_code = trk_code_info(err.code)->exit_code;
        }
    } else if (serve(&config, &err) < 0) {
        trk_log_error("image_builder cannot run", "error", err.text, NULL);
        exit_code = trk_code_info(err.code)->exit_code;
    }
    trk_config_fini(&builder_config_table, &config);
    return exit_code;
}
