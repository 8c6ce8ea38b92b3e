/*
 * profile.h - the public development profile, and the rule that keeps it off open networks.
 *
 * RACETRACK_PROFILE=dev gives AUTH_KEY, SECRET_KEY and admin's password and tokens values that
 * everybody knows. Without it keys are required. Whatever the profile, a service that listens
 * beyond loopback with one of these values must have been started with RACETRACK_PROFILE=dev
 * named. Any thread.
 *
 *     const char *auth_key = trk_profile_auth_key(config.profile, config.auth_key);
 *     if (trk_profile_check(config.profile, config.http_addr, auth_key, err) < 0) ...
 */
#ifndef LIBTRACK_PROFILE_H
#define LIBTRACK_PROFILE_H

#include <stdbool.h>

#include "libtrack/auth/jwt.h" /* TRK_DEV_AUTH_KEY */
#include "libtrack/base/err.h"

#define TRK_PROFILE_DEV "dev"

#define TRK_KEY_BYTES_MIN 32
#define TRK_DEV_PUBLIC_KEY                                                                         \
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEx3J07jJT98prlMyIyJvsI2TtFd"                               \
    "cV/qG74aWiVIntila+TX60EV15R4EKnS5i+ozwvYJ8SXLke+LEUwHFEknKLQ=="
#define TRK_DEV_SECRET_KEY        "racetrack-dev-secret-key-which-everybody-knows"
#define TRK_DEV_ADMIN_USER        "admin"
#define TRK_DEV_ADMIN_PASSWORD    "admin"
#define TRK_DEV_POSTGRES_PASSWORD "dev-25ZjbUDJH6MzmUR"

/* admin's token as the early guide prints it, and its twin with the header keys the other way
 * round: same payload, both signed with TRK_DEV_AUTH_KEY. */
#define TRK_DEV_ADMIN_TOKEN_EARLY                                                                  \
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9."                                                        \
    "eyJzZWVkIjoiY2UwODFiMDUtYTRhMC00MTRhLThmNmEtODRjMDIzMTkxNmE2Iiwic3ViamVjdCI6ImFkbWluIiwic3Vi" \
    "amVjdF90eXBlIjoidXNlciIsInNjb3BlcyI6bnVsbH0."                                                 \
    "_XIg7ainazrLnU6-4pJ1BW63vPpgtX41O2RhxshW-E0"
#define TRK_DEV_ADMIN_TOKEN                                                                        \
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."                                                        \
    "eyJzZWVkIjoiY2UwODFiMDUtYTRhMC00MTRhLThmNmEtODRjMDIzMTkxNmE2Iiwic3ViamVjdCI6ImFkbWluIiwic3Vi" \
    "amVjdF90eXBlIjoidXNlciIsInNjb3BlcyI6bnVsbH0."                                                 \
    "xDUcEmR7USck5RId0nwDo_xtZZBD6pUvB2vL6i39DQI"

/* Seeds of the development profile's tokens; the last four are internal ones with scope
 * full_access. */
#define TRK_DEV_SEED_ADMIN         "ce081b05-a4a0-414a-8f6a-84c0231916a6"
#define TRK_DEV_SEED_E2E           "322e0804-342b-4249-b3e9-6f50ece6aa4a"
#define TRK_DEV_SEED_PUB           "ca7ecf80-d01e-4f09-b8f4-16b531b8a93a"
#define TRK_DEV_SEED_IMAGE_BUILDER "dea76300-7bac-484c-9296-5d10cd937a58"
#define TRK_DEV_SEED_DASHBOARD     "223a8a3b-70d8-4c08-b8bf-79d407027da6"

bool trk_profile_is_dev(const char *profile); /* NULL and "" are not */
/* `key` unless it is empty and the profile is dev: then the public constant. Borrows. */
const char *trk_profile_auth_key(const char *profile, const char *key);
const char *trk_profile_secret_key(const char *profile, const char *key);
/* What belongs to AUTH_KEY, for services that do not hold it (service_key.h). */
const char *trk_profile_public_key(const char *profile, const char *key);
/* LIFECYCLE_AUTH_TOKEN of a service: `token` unless empty; in the dev profile an internal token of
 * `subject` (scope full_access), signed with the public key. TRK_INVALID when there is neither.
 * *ret owned. */
int trk_profile_internal_token(const char *profile, const char *token, const char *subject,
                               char **ret, struct trk_err *err) TRK_MUST_CHECK;

/* Is it an address of this machine only (127.0.0.0/8, ::1, localhost)? "" and NULL are not. */
bool trk_addr_is_loopback(const char *addr);
/* May a service with this profile listen on `addr` with `auth_key`? TRK_INVALID with what to do:
 * unknown profile, no key or a short one, a public key beyond loopback without the dev profile. */
int trk_profile_check(const char *profile, const char *addr, const char *auth_key,
                      struct trk_err *err) TRK_MUST_CHECK;
/* The same for LIFECYCLE_PUBLIC_KEY. */
int trk_profile_check_public_key(const char *profile, const char *addr, const char *public_key,
                                 struct trk_err *err) TRK_MUST_CHECK;
/* The same for SECRET_KEY. */
int trk_profile_check_secret(const char *profile, const char *addr, const char *secret_key,
                             struct trk_err *err) TRK_MUST_CHECK;

#endif
