#include "tests/unit/support/lifecycle_api.h"

#include <stdlib.h>
#include <string.h>
#include <talloc.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "lifecycle/auth/issue.h"
#include "lifecycle/bootstrap.h"
#include "lifecycle/config.h"
#include "lifecycle/domain/throttle.h"
#include "lifecycle/store/esc.h"
#include "lifecycle/store/generation.h"
#include "lifecycle/store/migrations.h"
#include "lifecycle/store/subject.h"

struct api_fixture api;
static struct lifecycle_config config;

/* Before the tests run there is nothing to report to. */
#define need(call)                                                                                 \
    do {                                                                                           \
        if ((call) != 0) {                                                                         \
            trk_die("%s: %s", #call, api.err.text);                                                \
        }                                                                                          \
    } while (0)

struct answer call(const char *method, const char *path, const char *token, json_t *body)
{
    trk_autofree char *url = trk_xasprintf("http://127.0.0.1:%d%s",
                                           trk_http_server_port(api.server), path);
    json_auto_t *owned = body;
    struct trk_http_call request = {
        .method = method, .url = url, .auth_token = token, .json = owned, .timeout_ms = 20000};
    struct trk_http_answer answer;
    ck_assert_msg(trk_http_call(api.client, &request, &answer, &api.err) == 0, "%s %s: %s", method,
                  path, api.err.text);
    struct answer ret = {.status = answer.status, .text = talloc_strdup(api.mem, answer.body)};
    if (trk_json_parse(answer.body, answer.body_len, &ret.body, NULL) < 0) {
        ret.body = NULL;
    }
    trk_http_answer_fini(&answer);
    return ret;
}

int status_of(const char *method, const char *path, const char *token, json_t *body)
{
    struct answer a = call(method, path, token, body);
    json_decref(a.body);
    return a.status;
}

const char *text_in(const struct answer *a, const char *key)
{
    return trk_json_string_or(a->body, key, "");
}

const char *internal_token(const char *scope)
{
    struct trk_token claims = {.type = TRK_SUBJECT_INTERNAL};
    memcpy(claims.subject, "test", 5);
    if (scope != NULL) {
        (void)snprintf(claims.scopes[0], sizeof(claims.scopes[0]), "%s", scope);
        claims.scope_count = 1;
    }
    trk_autofree char *token = NULL;
    must(trk_jwt_sign(&claims, api.lc.auth_key, &token, &api.err));
    return talloc_strdup(api.mem, token);
}

struct trk_pg *acquire(void)
{
    struct trk_pg *conn;
    must(trk_pg_acquire(api.lc.pool, &conn, &api.err));
    return conn;
}

const char *new_esc(const char *id, const char **ret_subject)
{
    trk_pg_auto struct trk_pg *conn = acquire();
    const char *token;
    must(issue_esc(conn, api.mem, id, id, api.lc.auth_key, &api.err));
    must(subject_store_ensure(conn, api.mem, TRK_SUBJECT_ESC, id, ret_subject, &api.err));
    must(token_store_current(conn, api.mem, *ret_subject, &token, &api.err));
    return token;
}

void new_job(const char *name, const char *version, const char *status)
{
    trk_pg_auto struct trk_pg *conn = acquire();
    const char *family_id;
    char id[TRK_UUID_SIZE];
    trk_uuid4(id);
    must(issue_family(conn, api.mem, name, api.lc.auth_key, &family_id, &api.err));
    struct job job = {.family_id = family_id,
                      .name = name,
                      .version = version,
                      .status = status,
                      .generation_id = id,
                      .manifest = "name: x\nlabels:\n  job: mine\n"};
    const struct generation generation = {.id = id,
                                          .job_name = name,
                                          .job_version = version,
                                          .infrastructure_target = "process",
                                          .spec = "{}",
                                          .replica_count = 1};
    must(generation_store_insert(conn, &generation, &api.err));
    must(generation_store_put_replicas(conn, id, "[[0, \"running\", \"127.0.0.1:4000\", \"\", 0]]",
                                       &api.err));
    must(job_store_save(conn, &job, &api.err));
}

void grant(const char *subject, const char *scope, const char *family, const char *endpoint)
{
    trk_pg_auto struct trk_pg *conn = acquire();
    const char *family_id;
    must(family_store_get(conn, api.mem, family, &family_id, &api.err));
    must(permission_store_grant(conn, subject, scope, family_id, NULL, endpoint, &api.err));
}

void sql(const char *text)
{
    trk_pg_auto struct trk_pg *conn = acquire();
    must(trk_pg_query(conn, NULL, &api.err, text, ""));
}

static void set_up(void)
{
    api.mem = talloc_new(NULL);
}

static void tear_down(void)
{
    talloc_free(api.mem);
}

static void start(void)
{
    api.cluster = pg_cluster_start();
    (void)unsetenv("CONFIG_FILE");
    (void)setenv("RACETRACK_PROFILE", "dev", 1);
    (void)setenv("LIFECYCLE_PORT", "0", 1);
    (void)setenv("LOG_LEVEL", "error", 0);
    trk_json_init();
    trk_log_init_from_env();
    need(trk_config_load(&lifecycle_config_table, &config, &api.err));
    api.lc.config = &config;
    api.lc.auth_key = lifecycle_auth_key(&config);
    api.lc.secret_key = lifecycle_secret_key(&config);
    api.lc.pg_options = (struct trk_pg_options){.conninfo = pg_cluster_conninfo(api.cluster),
                                                .schema = "racetrack",
                                                .size = 8,
                                                .acquire_timeout_ms = 2000};
    api.lc.pool = trk_pg_pool_new(&api.lc.pg_options);
    api.lc.metrics = trk_metrics_new();
    api.lc.events = event_hub_new(&api.lc);
    api.lc.logins = throttle_new(config.login_failures_max, config.login_failure_wait_s * 1000);
    api_metrics_register(&api.lc);
    need(migrations_run(api.lc.pool, NULL, &api.err));
    need(bootstrap_run(&api.lc, &api.err));
    need(bootstrap_run(&api.lc, &api.err)); /* once more changes nothing */
    need(event_hub_start(api.lc.events, &api.err));
    atomic_store(&api.lc.is_started, true);
    api_options(&api.lc, &api.options);
    need(trk_http_server_start(&api.options, &api.server, &api.err));
    api.client = trk_http_client_new();
}

static void stop(void)
{
    trk_http_client_free(api.client);
    event_hub_stop(api.lc.events);
    trk_http_server_stop(api.server, 5000);
    event_hub_free(api.lc.events);
    throttle_free(api.lc.logins);
    trk_metrics_free(api.lc.metrics);
    trk_pg_pool_free(api.lc.pool);
    trk_config_fini(&lifecycle_config_table, &config);
    pg_cluster_stop(api.cluster);
}

int api_fixture_run(const char *name, void (*add_tests)(TCase *tcase))
{
    start();
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK); /* one server */
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    stop();
    return failures > 0 ? 1 : 0;
}
