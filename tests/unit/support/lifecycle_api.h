/*
 * lifecycle_api.h - a whole lifecycle API for one test binary: a real server over a private
 * Postgres, without deployments being worked on. Strings that come back hang on `api.mem`, which
 * goes after each test.
 */
#ifndef TESTS_UNIT_SUPPORT_LIFECYCLE_API_H
#define TESTS_UNIT_SUPPORT_LIFECYCLE_API_H

#include <check.h>
#include <jansson.h>

#include "libtrack/config/profile.h"
#include "libtrack/http/http_client.h"
#include "lifecycle/api/api.h"
#include "tests/unit/support/pg_cluster.h"

#define ADMIN TRK_DEV_ADMIN_TOKEN

struct api_fixture {
    struct pg_cluster *cluster;
    struct lifecycle lc;
    struct trk_http_options options;
    struct trk_http_server *server;
    struct trk_http_client *client;
    struct trk_err err;
    void *mem;
};
extern struct api_fixture api;

#define must(call) ck_assert_msg((call) == 0, "%s: %s", #call, api.err.text)

struct answer {
    int status;
    json_t *body; /* owned by the caller; NULL when it is no JSON */
    char *text;
};
/* Takes `body` (NULL: none). `token` NULL: without. */
struct answer call(const char *method, const char *path, const char *token, json_t *body);
/* Status of a call whose body does not matter. */
int status_of(const char *method, const char *path, const char *token, json_t *body);
const char *text_in(const struct answer *a, const char *key);
/* One of our own services' tokens; scope NULL: without any. */
const char *internal_token(const char *scope);

struct trk_pg *acquire(void);
void sql(const char *text);
const char *new_esc(const char *id, const char **ret_subject); /* its token */
void new_job(const char *name, const char *version, const char *status);
void grant(const char *subject, const char *scope, const char *family, const char *endpoint);

/* main() of such a test: everything up, the suite, everything down. */
int api_fixture_run(const char *name, void (*add_tests)(TCase *tcase));

#endif
