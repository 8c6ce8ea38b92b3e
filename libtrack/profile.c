#include "libtrack/profile.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "libtrack/crypto.h"
#include "libtrack/mem.h"
#include "libtrack/str.h"

bool trk_profile_is_dev(const char *profile)
{
    return profile != NULL && strcmp(profile, TRK_PROFILE_DEV) == 0;
}

const char *trk_profile_auth_key(const char *profile, const char *key)
{
    return trk_str_is_empty(key) && trk_profile_is_dev(profile) ? TRK_DEV_AUTH_KEY : key;
}

const char *trk_profile_secret_key(const char *profile, const char *key)
{
    return trk_str_is_empty(key) && trk_profile_is_dev(profile) ? TRK_DEV_SECRET_KEY : key;
}

static const char *dev_seed(const char *subject)
{
    static const struct {
        const char *subject, *seed;
    } seeds[] = {
        {"e2e_test", TRK_DEV_SEED_E2E},
        {"pub", TRK_DEV_SEED_PUB},
        {"image-builder", TRK_DEV_SEED_IMAGE_BUILDER},
        {"dashboard", TRK_DEV_SEED_DASHBOARD},
    };
    for (size_t i = 0; i < TRK_COUNT(seeds); i++) {
        if (strcmp(subject, seeds[i].subject) == 0) {
            return seeds[i].seed;
        }
    }
    return "";
}

int trk_profile_internal_token(const char *profile, const char *token, const char *subject,
                               char **ret, struct trk_err *err)
{
    if (!trk_str_is_empty(token)) {
        *ret = trk_xstrdup(token);
        return 0;
    }
    if (!trk_profile_is_dev(profile)) {
        return trk_err_set(err, TRK_INVALID,
                           "LIFECYCLE_AUTH_TOKEN is required: make one with 'lifecycle "
                           "generate-auth %s', or set RACETRACK_PROFILE=dev for development",
                           subject);
    }
    struct trk_token internal = {
        .type = TRK_SUBJECT_INTERNAL, .scopes = {"full_access"}, .scope_count = 1};
    (void)snprintf(internal.seed, sizeof(internal.seed), "%s", dev_seed(subject));
    (void)snprintf(internal.subject, sizeof(internal.subject), "%s", subject);
    return trk_jwt_sign(&internal, TRK_DEV_AUTH_KEY, ret, err);
}

bool trk_addr_is_loopback(const char *addr)
{
    if (trk_str_is_empty(addr)) {
        return false;
    }
    if (strcasecmp(addr, "localhost") == 0 || strcmp(addr, "[::1]") == 0) {
        return true;
    }
    struct in_addr v4;
    if (inet_pton(AF_INET, addr, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    struct in6_addr v6;
    return inet_pton(AF_INET6, addr, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static int check_key(const char *profile, const char *addr, const char *name, const char *key,
                     struct trk_err *err)
{
    if (!trk_str_is_empty(profile) && !trk_profile_is_dev(profile)) {
        return trk_err_set(err, TRK_INVALID,
                           "RACETRACK_PROFILE: must be 'dev' or empty, is '%.64s'", profile);
    }
    if (trk_str_is_empty(key)) {
        return trk_err_set(err, TRK_INVALID,
                           "%s is required: set it to at least %d random bytes ('openssl rand -hex "
                           "32'), or set RACETRACK_PROFILE=dev for development",
                           name, TRK_KEY_BYTES_MIN);
    }
    if (strlen(key) < TRK_KEY_BYTES_MIN) {
        return trk_err_set(err, TRK_INVALID,
                           "%s is too short: %zu bytes, needs at least %d ('openssl rand -hex 32')",
                           name, strlen(key), TRK_KEY_BYTES_MIN);
    }
    bool is_public = trk_secret_equal(key, TRK_DEV_AUTH_KEY) ||
                     trk_secret_equal(key, TRK_DEV_SECRET_KEY);
    if (is_public && !trk_addr_is_loopback(addr) && !trk_profile_is_dev(profile)) {
        return trk_err_set(
            err, TRK_INVALID,
            "%s is the development key that everybody knows, and the service would "
            "listen on '%.64s', beyond this machine: set a key of your own ('openssl "
            "rand -hex 32'), listen on 127.0.0.1, or name RACETRACK_PROFILE=dev",
            name, addr != NULL ? addr : "");
    }
    return 0;
}

int trk_profile_check(const char *profile, const char *addr, const char *auth_key,
                      struct trk_err *err)
{
    return check_key(profile, addr, "AUTH_KEY", auth_key, err);
}

int trk_profile_check_secret(const char *profile, const char *addr, const char *secret_key,
                             struct trk_err *err)
{
    return check_key(profile, addr, "SECRET_KEY", secret_key, err);
}
