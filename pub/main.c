/* pub: the gateway to jobs. */
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/service.h"
#include "libtrack/config/profile.h"
#include "pub/config.h"
#include "pub/server.h"

/* The public development tokens open lifecycle to everybody who reaches this port. The token is
 * read (which loads libjwt) only where that matters: beyond this machine, without the dev profile.
 */
static int check_profile(const struct pub_config *config, const char *token, struct trk_err *err)
{
    static const char unknown_key[] = "pub is not told the key that its token was signed with";
    struct trk_err reason = {0};
    struct trk_err unread = {0};
    struct trk_token who;
    if (trk_profile_check(config->profile, config->addr, unknown_key, err) < 0) {
        return err->code;
    }
    if (trk_profile_check(config->profile, config->addr, TRK_DEV_AUTH_KEY, &reason) == 0) {
        return 0;
    }
    int rc = trk_jwt_verify(token, TRK_DEV_AUTH_KEY, &who, &unread);
    if (rc == TRK_UNAUTHENTICATED) {
        return 0; /* signed with another key, as it should be */
    }
    *err = rc < 0 ? unread : reason;
    return trk_err_wrap(err, "LIFECYCLE_AUTH_TOKEN");
}

static int serve(const struct pub_config *config, struct trk_err *err)
{
    trk_autofree char *token = NULL;
    if (trk_profile_internal_token(config->profile, config->lifecycle_auth_token, "pub", &token,
                                   err) < 0 ||
        check_profile(config, token, err) < 0) {
        return err->code;
    }
    sigset_t signals;
    trk_service_block_signals(&signals);
    struct pub_server *server;
    if (pub_server_start(config, token, &server, err) < 0) {
        return err->code;
    }
    int result = trk_service_announce("pub", config->state, config->addr, pub_server_port(server),
                                      err);
    if (result == 0) {
        (void)trk_service_wait("pub", &signals, -1);
    }
    pub_server_stop(server);
    return result;
}

int main(int argc, char **argv)
{
    struct pub_config config = {0};
    struct trk_err err = {0};
    int exit_code = 0;
    if (trk_service_main(&pub_config_table, &config, argc, argv, &exit_code)) {
        return exit_code;
    }
    if (serve(&config, &err) < 0) {
        trk_log_error("pub cannot run", "error", err.text, NULL);
        exit_code = trk_code_info(err.code)->exit_code;
    }
    trk_config_fini(&pub_config_table, &config);
    return exit_code;
}
