#include "libtrack/config/profile.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "libtrack/auth/service_key.h"
#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

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

const char *trk_profile_public_key(const char *profile, const char *key)
{
    return trk_str_is_empty(key) && trk_profile_is_dev(profile) ? TRK_DEV_PUBLIC_KEY : key;
}

#define DEV_TOKEN_HEADER "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."

/* The original's internal tokens of the development profile, signed beforehand: a service that only
 * presents its token need not load what signs. NULL for other subjects. */
static const char *dev_internal_token(const char *subject)
{
    static const struct {
        const char *subject, *token;
    } tokens[] = {
        {"e2e_test", DEV_TOKEN_HEADER
         "eyJzZWVkIjoiMzIyZTA4MDQtMzQyYi00MjQ5LWIzZTktNmY1MGVjZTZhYTRhIiwic3ViamVjdCI6ImUyZV90ZXN0"
         "Iiwic3ViamVjdF90eXBlIjoiaW50ZXJuYWwiLCJzY29wZXMiOlsiZnVsbF9hY2Nlc3MiXX0"
         ".dtpGhD5i93vFyWux2njyzSBoVw56GPnz_nEv7HIpM9Q"},
        {"pub", DEV_TOKEN_HEADER
         "eyJzZWVkIjoiY2E3ZWNmODAtZDAxZS00ZjA5LWI4ZjQtMTZiNTMxYjhhOTNhIiwic3ViamVjdCI6InB1YiIsInN1"
         "YmplY3RfdHlwZSI6ImludGVybmFsIiwic2NvcGVzIjpbImZ1bGxfYWNjZXNzIl19"
         ".DPNvAik8QfzrLYu9oBShwVwof_lXyrU2I85LQwH22mM"},
        {"image-builder", DEV_TOKEN_HEADER
         "eyJzZWVkIjoiZGVhNzYzMDAtN2JhYy00ODRjLTkyOTYtNWQxMGNkOTM3YTU4Iiwic3ViamVjdCI6ImltYWdlLWJ1"
         "aWxkZXIiLCJzdWJqZWN0X3R5cGUiOiJpbnRlcm5hbCIsInNjb3BlcyI6WyJmdWxsX2FjY2VzcyJdfQ"
         ".ND3wDeK58L5T1jIYcuArQ5O3M0Ez3_pCAEi5NXD_hLY"},
        {"dashboard", DEV_TOKEN_HEADER
         "eyJzZWVkIjoiMjIzYThhM2ItNzBkOC00YzA4LWI4YmYtNzlkNDA3MDI3ZGE2Iiwic3ViamVjdCI6ImRhc2hib2Fy"
         "ZCIsInN1YmplY3RfdHlwZSI6ImludGVybmFsIiwic2NvcGVzIjpbImZ1bGxfYWNjZXNzIl19"
         ".pQijyLd0Rlap5dJLmtetMdzZPFXCilglnVMUdFv68Jo"},
    };
    for (size_t i = 0; i < TRK_COUNT(tokens); i++) {
        if (strcmp(subject, tokens[i].subject) == 0) {
            return tokens[i].token;
        }
    }
    return NULL;
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
    const char *known = dev_internal_token(subject);
    if (known != NULL) {
        *ret = trk_xstrdup(known);
        return 0;
    }
    struct trk_token internal = {
        .type = TRK_SUBJECT_INTERNAL, .scopes = {"full_access"}, .scope_count = 1};
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

static int check_profile(const char *profile, struct trk_err *err)
{
    return trk_str_is_empty(profile) || trk_profile_is_dev(profile)
               ? 0
               : trk_err_set(err, TRK_INVALID,
                             "RACETRACK_PROFILE: must be 'dev' or empty, is '%.64s'", profile);
}

/* Values that everybody knows stay on this machine, unless the dev profile is named. */
static int check_place(const char *profile, const char *addr, const char *name, const char *remedy,
                       struct trk_err *err)
{
    return trk_addr_is_loopback(addr) || trk_profile_is_dev(profile)
               ? 0
               : trk_err_set(err, TRK_INVALID,
                             "%s is the development key that everybody knows, and the service "
                             "would listen on '%.64s', beyond this machine: set a key of your own "
                             "(%s), listen on 127.0.0.1, or name RACETRACK_PROFILE=dev",
                             name, addr != NULL ? addr : "", remedy);
}

static int check_key(const char *profile, const char *addr, const char *name, const char *key,
                     struct trk_err *err)
{
    if (check_profile(profile, err) < 0) {
        return err->code;
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
    return is_public ? check_place(profile, addr, name, "'openssl rand -hex 32'", err) : 0;
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

int trk_profile_check_public_key(const char *profile, const char *addr, const char *public_key,
                                 struct trk_err *err)
{
    static const char name[] = "LIFECYCLE_PUBLIC_KEY";
    if (check_profile(profile, err) < 0) {
        return err->code;
    }
    trk_autofree char *pem = trk_str_is_empty(public_key) ? NULL
                                                          : trk_service_key_public_pem(public_key);
    if (pem == NULL) {
        return trk_err_set(err, TRK_INVALID,
                           "%s is %s: set it to what 'lifecycle public-key' prints, or set "
                           "RACETRACK_PROFILE=dev for development",
                           name, trk_str_is_empty(public_key) ? "required" : "not such a key");
    }
    return strcmp(public_key, TRK_DEV_PUBLIC_KEY) == 0
               ? check_place(profile, addr, name, "'lifecycle public-key'", err)
               : 0;
}
