#include <stdio.h>
#include <string.h>

#include "libtrack/base/crypto.h"
#include "libtrack/base/mem.h"
#include "libtrack/pg/pg_internal.h"

/* Each missing migration is a transaction of its own that takes the lock first and looks again: two
 * services that start at once do not get in each other's way, and a crash leaves whole steps. */

struct step {
    const struct trk_migration *migrations;
    size_t count;
    bool done, applied;
};

static bool has_table(const struct trk_pg_result *res)
{
    return trk_pg_bool(res, 0, "found");
}

/* Compares what is applied with what is compiled in; *ret_missing is the first one missing, or
 * count. */
static int look(struct trk_pg *conn, const struct trk_migration *migrations, size_t count,
                size_t *ret_missing, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *table = NULL;
    int rc = trk_pg_query(conn, &table, err,
                          "select to_regclass('registry_migration') is not null as found", "");
    if (rc < 0) {
        return rc;
    }
    if (!has_table(table)) {
        *ret_missing = 0;
        return 0;
    }
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    rc = trk_pg_query(conn, &res, err,
                      "select number, name, checksum from registry_migration order by number", "");
    if (rc < 0) {
        return rc;
    }
    size_t applied = (size_t)trk_pg_rows(res);
    for (size_t i = 0; i < applied && i < count; i++) {
        char digest[TRK_DIGEST_SIZE];
        trk_digest(migrations[i].sql, strlen(migrations[i].sql), digest);
        if (trk_pg_int(res, (int)i, "number") != migrations[i].number ||
            strcmp(trk_pg_text(res, (int)i, "checksum"), digest) != 0) {
            return trk_err_set(err, TRK_INTERNAL,
                               "migration %s.sql was changed after the database had applied it (as "
                               "%s): add a new migration instead",
                               migrations[i].name, trk_pg_text(res, (int)i, "name"));
        }
    }
    if (applied > count) {
        return trk_err_set(err, TRK_INTERNAL,
                           "the database has been migrated by a newer version (%s): update this "
                           "service",
                           trk_pg_text(res, (int)applied - 1, "name"));
    }
    *ret_missing = applied;
    return 0;
}

static int prepare(struct trk_pg *conn, struct trk_err *err)
{
    /* Its own limit: a long migration of another instance is worth waiting for. */
    conn->timeout_ms = 0;
    int rc = pg_exec(conn, "set local statement_timeout = 0", err);
    if (rc == 0) {
        rc = pg_exec(conn,
                     "select pg_advisory_xact_lock(hashtextextended('racetrack migrations ' || "
                     "current_setting('search_path'), 0))",
                     err);
    }
    const char *schema = pg_pool_schema(conn->pool);
    if (rc == 0 && schema != NULL) {
        char *quoted = PQescapeIdentifier(conn->link, schema, strlen(schema));
        trk_autofree char *sql = trk_xasprintf("create schema if not exists %s", quoted);
        PQfreemem(quoted);
        rc = pg_exec(conn, sql, err);
    }
    if (rc == 0) {
        rc = pg_exec(conn,
                     "create table if not exists registry_migration (number integer primary key, "
                     "name text not null, checksum text not null, "
                     "apply_time timestamptz not null default now())",
                     err);
    }
    return rc;
}

static int apply_next(struct trk_pg *conn, void *ctx, struct trk_err *err)
{
    struct step *step = ctx;
    step->applied = false;
    size_t missing;
    int rc = prepare(conn, err);
    if (rc == 0) {
        rc = look(conn, step->migrations, step->count, &missing, err);
    }
    if (rc < 0) {
        return rc;
    }
    step->done = missing == step->count;
    if (step->done) {
        return 0;
    }
    const struct trk_migration *m = &step->migrations[missing];
    rc = pg_exec(conn, m->sql, err);
    if (rc < 0) {
        return trk_err_wrap(err, "migration %s.sql", m->name);
    }
    char digest[TRK_DIGEST_SIZE];
    trk_digest(m->sql, strlen(m->sql), digest);
    rc = trk_pg_query(conn, NULL, err,
                      "insert into registry_migration (number, name, checksum) values ($1, $2, "
                      "$3)",
                      "iss", (int64_t)m->number, m->name, digest);
    step->applied = rc == 0;
    return rc;
}

int trk_pg_migrate(struct trk_pg_pool *pool, const struct trk_migration *migrations, size_t count,
                   unsigned *ret_applied, struct trk_err *err)
{
    unsigned applied = 0;
    struct step step = {.migrations = migrations, .count = count};
    {
        /* The usual case at start, without the lock: everything is there. */
        trk_pg_auto struct trk_pg *conn = NULL;
        size_t missing;
        int rc = trk_pg_acquire(pool, &conn, err);
        if (rc == 0) {
            rc = look(conn, migrations, count, &missing, err);
        }
        if (rc < 0) {
            return rc;
        }
        step.done = missing == count;
    }
    while (!step.done) {
        int rc = trk_pg_transaction(pool, apply_next, &step, err);
        if (rc < 0) {
            return rc;
        }
        applied += step.applied;
    }
    if (ret_applied != NULL) {
        *ret_applied = applied;
    }
    return 0;
}
