/*
 * instances.c - which lifecycles of this state folder are alive. Each holds a lock on a file of its
 * name; when the lock can be had, its holder is dead, and what it had in hand is free at once
 * instead of when its lease runs out. Replicas on other hosts rely on the lease alone.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "lifecycle/deploy/work.h"

static char *instances_dir(const struct lifecycle *lc)
{
    return trk_xasprintf("%s/run/instances", lc->config->state_dir);
}

int instances_enter(struct lifecycle *lc, int *ret_fd, struct trk_err *err)
{
    trk_autofree char *dir = instances_dir(lc);
    trk_autofree char *path = trk_xasprintf("%s/%s", dir, lc->instance_id);
    /* Locked before it has its name: whoever sees it must not find it free. */
    trk_autofree char *temporary = trk_xasprintf("%s/.%s", dir, lc->instance_id);
    int rc = trk_mkdir_p(dir, 0700, err);
    if (rc < 0) {
        return rc;
    }
    trk_autoclose int fd = open(temporary, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || rename(temporary, path) < 0) {
        return trk_err_errno(err, errno, "registering this instance as %s", path);
    }
    *ret_fd = TRK_STEAL_FD(fd);
    return 0;
}

void instances_leave(struct lifecycle *lc, int fd)
{
    trk_autofree char *dir = instances_dir(lc);
    trk_autofree char *path = trk_xasprintf("%s/%s", dir, lc->instance_id);
    if (fd >= 0) {
        (void)unlink(path);
        (void)close(fd);
    }
}

/* Is the instance of this file dead? Then *ret_fd holds the lock. */
static bool is_dead(const char *path, int *ret_fd)
{
    trk_autoclose int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0) {
        return false;
    }
    *ret_fd = TRK_STEAL_FD(fd);
    return true;
}

static void free_leases(struct lifecycle *lc, const char *instance, const char *path)
{
    trk_pg_auto struct trk_pg *conn = NULL;
    struct trk_err err = {0};
    if (trk_pg_acquire(lc->pool, &conn, &err) == 0 && queue_expire(conn, instance, &err) == 0) {
        (void)unlink(path);
        trk_log_info("an instance of lifecycle died; its deployments go on here", "instance",
                     instance, NULL);
    }
}

void instances_bury(struct lifecycle *lc)
{
    trk_autofree char *dir_path = instances_dir(lc);
    DIR *dir = opendir(dir_path);
    if (dir == NULL) {
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        trk_autofree char *path = trk_xasprintf("%s/%s", dir_path, entry->d_name);
        trk_autoclose int fd = -1;
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, lc->instance_id) != 0 &&
            is_dead(path, &fd)) {
            free_leases(lc, entry->d_name, path);
        }
    }
    (void)closedir(dir);
}
