#include "tests/unit/support/pg_cluster.h"

#include <fcntl.h>
#include <grp.h>
#include <postgresql/libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/clock.h"
#include "libtrack/base/mem.h"

struct pg_cluster {
    char *dir, *data, *log, *conninfo;
    char *bin;
    pid_t pid;
    uid_t uid;
    gid_t gid;
};

static char *find_bin(void)
{
    static const char *const versions[] = {"17", "16", "15", "14", "13"};
    for (size_t i = 0; i < TRK_COUNT(versions); i++) {
        char *dir = trk_xasprintf("/usr/lib/postgresql/%s/bin", versions[i]);
        trk_autofree char *initdb = trk_xasprintf("%s/initdb", dir);
        if (access(initdb, X_OK) == 0) {
            return dir;
        }
        free(dir);
    }
    trk_die("no Postgres server found in /usr/lib/postgresql/*/bin (apt-get install postgresql)");
}

static pid_t run(struct pg_cluster *cluster, const char *const *argv)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    trk_assert(pid >= 0);
    if (pid > 0) {
        return pid;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGQUIT);
    int log = open(cluster->log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    int null = open("/dev/null", O_RDONLY);
    (void)dup2(null, 0);
    (void)dup2(log, 1);
    (void)dup2(log, 2);
    if (geteuid() == 0 &&
        (setgroups(0, NULL) < 0 || setgid(cluster->gid) < 0 || setuid(cluster->uid) < 0)) {
        _exit(126);
    }
    /* Changing the user clears the request to die with the parent. */
    (void)prctl(PR_SET_PDEATHSIG, SIGQUIT);
    if (getppid() != parent || chdir(cluster->dir) < 0) {
        _exit(126);
    }
    /* LC_ALL=C spares initdb a search; the sanitizers' options stay with us. */
    char *const env[] = {(char[]){"PATH=/usr/bin:/bin"}, (char[]){"LC_ALL=C"}, NULL};
    execve(argv[0], (char *const *)(uintptr_t)argv, env);
    _exit(127);
}

static void die_with_log(const struct pg_cluster *cluster, const char *what)
{
    struct trk_buf buf;
    trk_buf_init(&buf, 1 << 20);
    int fd = open(cluster->log, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || trk_buf_read_fd(&buf, fd, NULL) < 0) {
        trk_die("%s; no log could be read", what);
    }
    trk_die("%s; its log:\n%s", what, buf.data);
}

static void start_server(struct pg_cluster *cluster)
{
    trk_autofree char *postgres = trk_xasprintf("%s/postgres", cluster->bin);
    const char *const argv[] = {postgres,
                                "-D",
                                cluster->data,
                                "-k",
                                cluster->dir,
                                "-c",
                                "listen_addresses=",
                                "-c",
                                "fsync=off",
                                "-c",
                                "full_page_writes=off",
                                "-c",
                                "max_connections=40",
                                "-c",
                                "shared_buffers=16MB",
                                NULL};
    cluster->pid = run(cluster, argv);
    int64_t deadline = trk_now_ns() + 20 * TRK_NS_PER_S;
    while (PQping(cluster->conninfo) != PQPING_OK) {
        if (trk_now_ns() > deadline || waitpid(cluster->pid, NULL, WNOHANG) != 0) {
            die_with_log(cluster, "the test's Postgres did not start");
        }
        trk_sleep_ms(10);
    }
}

struct pg_cluster *pg_cluster_start(void)
{
    struct pg_cluster *cluster = trk_xcalloc(1, sizeof(*cluster));
    cluster->bin = find_bin();
    cluster->uid = geteuid();
    cluster->gid = getegid();
    if (geteuid() == 0) {
        const struct passwd *user = getpwnam("postgres");
        user = user != NULL ? user : getpwnam("nobody");
        trk_assert(user != NULL);
        cluster->uid = user->pw_uid;
        cluster->gid = user->pw_gid;
    }
    /* Not below $TEST_TMP: its folders may be closed to the other user, and a socket's path is
     * short. */
    cluster->dir = trk_xstrdup("/tmp/racetrack-pg.XXXXXX");
    trk_assert(mkdtemp(cluster->dir) != NULL);
    trk_assert(geteuid() != 0 || chown(cluster->dir, cluster->uid, cluster->gid) == 0);
    cluster->data = trk_xasprintf("%s/data", cluster->dir);
    cluster->log = trk_xasprintf("%s/log", cluster->dir);
    cluster->conninfo = trk_xasprintf("host=%s port=5432 user=racetrack dbname=postgres",
                                      cluster->dir);

    trk_autofree char *initdb = trk_xasprintf("%s/initdb", cluster->bin);
    const char *const argv[] = {initdb,      "-D",           cluster->data, "-U",   "racetrack",
                                "--no-sync", "--auth=trust", "-E",          "UTF8", NULL};
    int status = -1;
    pid_t pid = run(cluster, argv);
    if (waitpid(pid, &status, 0) != pid || status != 0) {
        die_with_log(cluster, "initdb failed");
    }
    start_server(cluster);
    return cluster;
}

const char *pg_cluster_conninfo(const struct pg_cluster *cluster)
{
    return cluster->conninfo;
}

void pg_cluster_crash(struct pg_cluster *cluster)
{
    trk_assert(kill(cluster->pid, SIGQUIT) == 0);
    trk_assert(waitpid(cluster->pid, NULL, 0) == cluster->pid);
}

void pg_cluster_resume(struct pg_cluster *cluster)
{
    start_server(cluster);
}

void pg_cluster_stop(struct pg_cluster *cluster)
{
    pg_cluster_crash(cluster);
    const char *const argv[] = {"/bin/rm", "-rf", "--", cluster->dir, NULL};
    pid_t pid = fork();
    if (pid == 0) {
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    (void)waitpid(pid, NULL, 0);
    free(cluster->dir);
    free(cluster->data);
    free(cluster->log);
    free(cluster->conninfo);
    free(cluster->bin);
    free(cluster);
}
