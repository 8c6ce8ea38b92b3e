/* image_builder: builds jobs' images, keeps them, serves them as a registry. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "image_builder/service.h"
#include "libtrack/file.h"
#include "libtrack/log.h"
#include "libtrack/mem.h"

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

static int write_port(const struct builder_config *config, int port, struct trk_err *err)
{
    trk_autofree char *run = trk_xasprintf("%s/run", config->state_dir);
    trk_autofree char *path = trk_xasprintf("%s/image_builder.port", run);
    char text[16];
    int len = snprintf(text, sizeof(text), "%d\n", port);
    if (trk_mkdir_p(run, 0755, err) < 0 || trk_file_write(path, text, (size_t)len, 0644, err) < 0) {
        return err->code;
    }
    return 0;
}

/* Blocked before threads start, so that only main sees them. */
static void block_signals(sigset_t *ret)
{
    (void)sigemptyset(ret);
    (void)sigaddset(ret, SIGTERM);
    (void)sigaddset(ret, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, ret, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

static int serve(struct builder_config *config, struct trk_err *err)
{
    sigset_t signals;
    struct service *service;
    (void)umask(022);
    block_signals(&signals);
    if (make_state_absolute(config, err) < 0 || service_start(config, &service, err) < 0) {
        return err->code;
    }
    char port[16];
    (void)snprintf(port, sizeof(port), "%d", service_port(service));
    int rc = write_port(config, service_port(service), err);
    if (rc == 0) {
        trk_log_info("image_builder is listening", "addr", config->http_addr, "port", port, NULL);
        int number = 0;
        (void)sigwait(&signals, &number);
        trk_log_info("image_builder is stopping", "signal",
                     number == SIGTERM ? "SIGTERM" : "SIGINT", NULL);
    }
    service_stop(service);
    return rc;
}

int main(int argc, char **argv)
{
    struct builder_config config = {0};
    struct trk_err err = {0};
    int exit_code = 0;
    if (trk_service_main(&builder_config_table, &config, argc, argv, &exit_code)) {
        return exit_code;
    }
    if (serve(&config, &err) < 0) {
        trk_log_error("image_builder cannot run", "error", err.text, NULL);
        exit_code = trk_code_info(err.code)->exit_code;
    }
    trk_config_fini(&builder_config_table, &config);
    return exit_code;
}
