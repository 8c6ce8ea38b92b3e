/*
 * pg_cluster.h - a private Postgres for one test binary: initdb in $TEST_TMP, unix socket only.
 *
 * Postgres refuses to run as root, so then it runs as user postgres or nobody. The server ends with
 * the test: it is started in the foreground below a parent that dies with us. fsync is off: nothing
 * here outlives the run. Skipped never: without Postgres installed the test fails and says so.
 *
 *     struct pg_cluster *cluster = pg_cluster_start();
 *     struct trk_pg_options options = {.conninfo = pg_cluster_conninfo(cluster), .size = 4};
 *     ...
 *     pg_cluster_stop(cluster);
 */
#ifndef TESTS_UNIT_SUPPORT_PG_CLUSTER_H
#define TESTS_UNIT_SUPPORT_PG_CLUSTER_H

struct pg_cluster;

/* Starts it and waits until it answers; aborts with the server's log when it does not. */
struct pg_cluster *pg_cluster_start(void);
const char *pg_cluster_conninfo(const struct pg_cluster *cluster); /* valid until stop */
/* SIGQUIT (as a crash: no farewell to clients) and start again: for tests of recovery. */
void pg_cluster_crash(struct pg_cluster *cluster);
void pg_cluster_resume(struct pg_cluster *cluster);
void pg_cluster_stop(struct pg_cluster *cluster);

#endif
