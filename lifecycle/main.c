/*
 * lifecycle: the API, and the only owner of Postgres. Order of start: it is live at once; ready
 * when the database is there, migrated, and the deployment queue works.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/auth/service_key.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/service.h"
#include "lifecycle/api/api.h"
#include "lifecycle/auth/issue.h"
#include "lifecycle/bootstrap.h"
#include "lifecycle/config.h"
#include "lifecycle/deploy/deploy.h"
#include "lifecycle/domain/throttle.h"
#include "lifecycle/infra/process/process.h"
#include "lifecycle/store/migrations.h"
#include "lifecycle/supervisor/supervisor.h"
#include "lifecycle/targets.h"

#define WAIT_LOG_NS        (30 * TRK_NS_PER_S)
#define DATABASE_AGAIN_MS  250
#define ACQUIRE_TIMEOUT_MS 2000
#define STOP_GRACE_MS      1500
#define STOP_JOBS_GRACE_MS 10000

static struct lifecycle_config config;
static struct lifecycle lc; /* threads that are left behind at the end may still look */

/* -- start -- */

static void add_conninfo(struct trk_buf *buf, const char *key, const char *value)
{
    if (value[0] == '\0') {
        return;
    }
    (void)trk_buf_addf(buf, "%s%s='", buf->len > 0 ? " " : "", key);
    for (; *value != '\0'; value++) {
        if (*value == '\'' || *value == '\\') {
            (void)trk_buf_addc(buf, '\\');
        }
        (void)trk_buf_addc(buf, *value);
    }
    (void)trk_buf_addc(buf, '\'');
}

/* Returns owned. */
static char *make_conninfo(void)
{
    char port[16];
    (void)snprintf(port, sizeof(port), "%lld", (long long)config.postgres_port);
    struct trk_buf buf;
    trk_buf_init(&buf, 64 * 1024);
    add_conninfo(&buf, "host", config.postgres_host);
    add_conninfo(&buf, "port", port);
    add_conninfo(&buf, "user", config.postgres_user);
    add_conninfo(&buf, "password", config.postgres_password);
    add_conninfo(&buf, "dbname", config.postgres_db);
    add_conninfo(&buf, "sslmode", config.postgres_sslmode);
    return trk_buf_steal(&buf, NULL);
}

static int make_lifecycle(struct trk_err *err)
{
    char *token = NULL;
    int code = issue_internal("lifecycle", trk_jwt_sign_service, lifecycle_auth_key(&config),
                              &token, err);
    if (code < 0) {
        return code;
    }
    lc.config = &config;
    lc.auth_key = lifecycle_auth_key(&config);
    lc.secret_key = lifecycle_secret_key(&config);
    lc.internal_token = token;
    lc.pg_options = (struct trk_pg_options){
        .conninfo = make_conninfo(),
        .schema = config.postgres_schema,
        .size = (unsigned)config.database_connection_pool,
        .acquire_timeout_ms = ACQUIRE_TIMEOUT_MS,
        .application_name = "racetrack-lifecycle",
        .statement_timeout_ms = config.database_statement_timeout_ms,
    };
    lc.pool = trk_pg_pool_new(&lc.pg_options);
    lc.metrics = trk_metrics_new();
    lc.events = event_hub_new(&lc);
    lc.logins = throttle_new(config.login_failures_max, config.login_failure_wait_s * 1000);
    trk_uuid4(lc.instance_id);
    api_metrics_register(&lc);
    return 0;
}

/* Other programs find the port here: it may be one that the system chose. */
static int prepare_database(struct trk_err *err)
{
    unsigned applied = 0;
    int code = migrations_run(lc.pool, &applied, err);
    if (code == 0 && applied > 0) {
        char count[16];
        (void)snprintf(count, sizeof(count), "%u", applied);
        trk_log_info("migrated the database", "migrations", count, NULL);
    }
    return code < 0 ? code : bootstrap_run(&lc, err);
}

/* Waits for Postgres as long as it takes. 1 when told to stop meanwhile. */
static int wait_for_database(const sigset_t *signals, struct trk_err *err)
{
    int64_t said_at = 0;
    for (;;) {
        int code = prepare_database(err);
        if (code != TRK_UNAVAILABLE) {
            if (code == 0 && said_at != 0) {
                trk_log_info("Postgres answers", NULL);
            }
            return code;
        }
        if (said_at == 0 || trk_now_ns() - said_at > WAIT_LOG_NS) {
            char why[512];
            trk_pg_pool_last_error(lc.pool, why, sizeof(why));
            trk_log_warn("waiting for Postgres", "host", config.postgres_host, "reason", why, NULL);
            said_at = trk_now_ns();
        }
        if (trk_service_wait("lifecycle", signals, DATABASE_AGAIN_MS)) {
            return 1;
        }
    }
}

static int start_work(struct trk_err *err)
{
    int code = event_hub_start(lc.events, err);
    if (code == 0) {
        code = deploy_start(&lc, err);
    }
    if (code == 0) {
        code = supervisor_start(&lc, err);
    }
    if (code == 0) {
        atomic_store(&lc.is_started, true);
        trk_log_info("lifecycle is ready", NULL);
    }
    return code;
}

/* -- the run -- */

static int serve(const sigset_t *signals, struct trk_err *err)
{
    struct trk_http_options options;
    api_options(&lc, &options);
    struct trk_http_server *server;
    int code = trk_http_server_start(&options, &server, err);
    if (code == 0) {
        code = trk_service_announce("lifecycle", config.state_dir, config.http_addr,
                                    trk_http_server_port(server), err);
    }
    if (code < 0) {
        return code;
    }
    code = targets_start(&lc, err);
    if (code == 0) {
        code = wait_for_database(signals, err);
    }
    bool works = code == 0;
    if (works) {
        code = start_work(err);
    }
    if (code == 0) {
        (void)trk_service_wait("lifecycle", signals, -1);
    }
    event_hub_stop(lc.events);
    if (works) {
        deploy_stop(&lc, STOP_GRACE_MS);
        supervisor_stop(&lc);
    }
    trk_http_server_stop(server, STOP_GRACE_MS);
    return code < 0 ? code : 0;
}

static int run(void)
{
    sigset_t signals;
    trk_service_block_signals(&signals); /* before the first thread: all inherit it */
    struct trk_err err = {0};
    int code = make_lifecycle(&err);
    if (code == 0) {
        code = serve(&signals, &err);
    }
    if (code < 0) {
        trk_log_error("lifecycle stopped", "error", err.text, NULL);
    }
    /* Threads of requests that did not end in time still run: nothing is torn down under them. */
    (void)fflush(NULL);
    _exit(code < 0 ? 1 : 0);
}

/* -- sub-commands -- */

static int fail(const struct trk_err *err)
{
    (void)fprintf(stderr, "lifecycle: %s\n", err->text);
    return 1;
}

static int public_key(int argc, char **argv)
{
    bool is_short = argc == 3 && strcmp(argv[2], "--short") == 0;
    if (argc > 2 && !is_short) {
        (void)fprintf(stderr, "usage: lifecycle public-key [--short]\n");
        return 2;
    }
    trk_autofree char *key = trk_service_key_public(lifecycle_auth_key(&config));
    (void)printf(is_short ? "%s\n" : "LIFECYCLE_PUBLIC_KEY=%s\n", key);
    return 0;
}

static int generate_auth(int argc, char **argv)
{
    bool is_short = false, is_registry = false, is_wrong = argc < 3 || argv[2][0] == '-';
    for (int i = 3; i < argc; i++) {
        bool *option = strcmp(argv[i], "--short") == 0      ? &is_short
                       : strcmp(argv[i], "--registry") == 0 ? &is_registry
                                                            : &is_wrong;
        *option = true;
    }
    if (is_wrong) {
        (void)fprintf(stderr,
                      "usage: lifecycle generate-auth SUBJECT [--registry] [--short]\n"
                      "  a token for lifecycle; with --registry one for image_builder and its "
                      "registry\n");
        return 2;
    }
    struct trk_err err = {0};
    trk_autofree char *token = NULL;
    if (issue_internal(argv[2], is_registry ? trk_jwt_sign_service : trk_jwt_sign,
                       lifecycle_auth_key(&config), &token, &err) < 0) {
        return fail(&err);
    }
    const char *name = is_registry ? "REGISTRY_TOKEN=" : "LIFECYCLE_AUTH_TOKEN=";
    (void)printf("%s%s\n", is_short ? "" : name, token);
    return 0;
}

static int stop_jobs(int argc)
{
    if (argc > 2) {
        (void)fprintf(stderr, "usage: lifecycle stop-jobs\n");
        return 2;
    }
    struct trk_err err = {0};
    size_t count;
    if (infra_process_stop_all(config.state_dir, STOP_JOBS_GRACE_MS, &count, &err) < 0) {
        return fail(&err);
    }
    (void)printf("stopped %zu jobs\n", count);
    return 0;
}

int main(int argc, char **argv)
{
    int code;
    if (trk_service_main(&lifecycle_config_table, &config, argc, argv, &code)) {
        return code;
    }
    if (argc > 1 && strcmp(argv[1], "generate-auth") == 0) {
        code = generate_auth(argc, argv);
    } else if (argc > 1 && strcmp(argv[1], "public-key") == 0) {
        code = public_key(argc, argv);
    } else if (argc > 1 && strcmp(argv[1], "stop-jobs") == 0) {
        code = stop_jobs(argc);
    } else if (argc > 1) {
        (void)fprintf(stderr,
                      "lifecycle: unknown command %s; there are generate-auth, public-key and "
                      "stop-jobs, and --help\n",
                      argv[1]);
        code = 2;
    } else {
        return run();
    }
    trk_config_fini(&lifecycle_config_table, &config);
    return code;
}
