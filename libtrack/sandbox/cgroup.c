#include "libtrack/sandbox/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"

enum { GROUP_DIRS = 3 }; /* memory (v2: all), cpu, pids */

/* Own parameter files are tiny: one write, nothing created. */
static int write_value(const char *path, const char *value)
{
    trk_autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    return write(fd, value, strlen(value)) == (ssize_t)strlen(value) ? 0 : -1;
}

static int write_parameter(const char *dir, const char *file, const char *value)
{
    trk_autofree char *path = trk_xasprintf("%s/%s", dir, file);
    return write_value(path, value);
}

static bool has_file(const char *dir, const char *file)
{
    trk_autofree char *path = trk_xasprintf("%s/%s", dir, file);
    return trk_path_exists(path);
}

/* Path of this process's group in the hierarchy of `controller` ("" for v2). Owned, or NULL. */
static char *own_group(const char *controller)
{
    trk_autofree char *text = NULL;
    size_t len;
    if (trk_file_read("/proc/self/cgroup", 65536, &text, &len, NULL) < 0) {
        return NULL;
    }
    for (char *line = text; line != NULL && *line != '\0';) {
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        char *names = strchr(line, ':');
        char *path = names != NULL ? strchr(names + 1, ':') : NULL;
        if (path != NULL) {
            *path++ = '\0';
            names++;
            size_t want = strlen(controller);
            bool is_match = want == 0 ? *names == '\0' : false;
            for (char *name = names; want > 0 && name != NULL;) {
                is_match = is_match || (strncmp(name, controller, want) == 0 &&
                                        (name[want] == '\0' || name[want] == ','));
                name = strchr(name, ',');
                name = name != NULL ? name + 1 : NULL;
            }
            if (is_match) {
                return trk_xstrdup(strcmp(path, "/") == 0 ? "" : path);
            }
        }
        line = end != NULL ? end + 1 : NULL;
    }
    return NULL;
}

/* Where the groups go in a v1 hierarchy: below our own group, so that what limits us limits them.
 */
static bool detect_v1(const char *controller, const char *limit_file, char *out, size_t size)
{
    trk_autofree char *own = own_group(controller);
    if (own == NULL) {
        return false;
    }
    snprintf(out, size, "/sys/fs/cgroup/%s%s/racetrack", controller, own);
    bool is_usable = (mkdir(out, 0755) == 0 || errno == EEXIST) && access(out, W_OK) == 0 &&
                     has_file(out, limit_file) && has_file(out, "cgroup.procs");
    if (!is_usable) {
        out[0] = '\0';
    }
    return is_usable;
}

static bool detect_v2(struct trk_cgroups *c)
{
    trk_autofree char *own = own_group("");
    if (own == NULL || !trk_path_exists("/sys/fs/cgroup/cgroup.controllers")) {
        return false;
    }
    /* A group with processes cannot hand controllers down, unless it is the root: beside ours. */
    char *cut = strrchr(own, '/');
    if (cut != NULL) {
        *cut = '\0';
    }
    trk_autofree char *parent = trk_xasprintf("/sys/fs/cgroup%s", own);
    (void)write_parameter(parent, "cgroup.subtree_control", "+memory");
    (void)write_parameter(parent, "cgroup.subtree_control", "+cpu");
    (void)write_parameter(parent, "cgroup.subtree_control", "+pids");
    snprintf(c->memory, sizeof(c->memory), "%s/racetrack", parent);
    if (mkdir(c->memory, 0755) < 0 && errno != EEXIST) {
        return false;
    }
    bool has_memory = write_parameter(c->memory, "cgroup.subtree_control", "+memory") == 0;
    bool has_cpu = write_parameter(c->memory, "cgroup.subtree_control", "+cpu") == 0;
    bool has_pids = write_parameter(c->memory, "cgroup.subtree_control", "+pids") == 0;
    if (!has_memory) {
        (void)rmdir(c->memory);
        return false;
    }
    if (has_cpu) {
        memcpy(c->cpu, c->memory, sizeof(c->cpu));
    }
    if (has_pids) {
        memcpy(c->pids, c->memory, sizeof(c->pids));
    }
    c->version = 2;
    return true;
}

void trk_cgroups_detect(struct trk_cgroups *c)
{
    memset(c, 0, sizeof(*c));
    if (detect_v2(c)) {
        return;
    }
    memset(c, 0, sizeof(*c));
    if (detect_v1("memory", "memory.limit_in_bytes", c->memory, sizeof(c->memory))) {
        c->version = 1;
        (void)detect_v1("cpu", "cpu.cfs_quota_us", c->cpu, sizeof(c->cpu));
        (void)detect_v1("pids", "cgroup.procs", c->pids, sizeof(c->pids));
    }
}

/* The group's folders: one with v2, one a controller with v1. Owned strings, NULL where there is
 * none. */
static void group_dirs(const struct trk_cgroups *c, const char *id, char *out[GROUP_DIRS])
{
    const char *const parents[GROUP_DIRS] = {c->memory, c->cpu, c->pids};
    for (int i = 0; i < GROUP_DIRS; i++) {
        bool has_own = c->version == 1 || (c->version == 2 && i == 0);
        out[i] = has_own && parents[i][0] != '\0' ? trk_xasprintf("%s/%s", parents[i], id) : NULL;
    }
}

static int set_memory(const struct trk_cgroups *c, const char *dir, int64_t bytes)
{
    char value[32];
    snprintf(value, sizeof(value), "%lld", (long long)bytes);
    if (c->version == 2) {
        (void)write_parameter(dir, "memory.swap.max", "0");
        return write_parameter(dir, "memory.max", value);
    }
    int rc = write_parameter(dir, "memory.limit_in_bytes", value);
    (void)write_parameter(dir, "memory.memsw.limit_in_bytes", value); /* where swap is accounted */
    return rc;
}

static int set_cpu(const struct trk_cgroups *c, const char *dir, int64_t milli)
{
    char value[64];
    long long quota_us = milli * 100;
    if (quota_us < 1000) {
        quota_us = 1000; /* the least the kernel takes */
    }
    if (c->version == 2) {
        snprintf(value, sizeof(value), "%lld 100000", quota_us);
        return write_parameter(dir, "cpu.max", value);
    }
    (void)write_parameter(dir, "cpu.cfs_period_us", "100000");
    snprintf(value, sizeof(value), "%lld", quota_us);
    return write_parameter(dir, "cpu.cfs_quota_us", value);
}

static int set_pids(const char *dir, int64_t count)
{
    char value[32];
    snprintf(value, sizeof(value), "%lld", (long long)count);
    return write_parameter(dir, "pids.max", value);
}

static int set_limits(const struct trk_cgroups *c, char *const dirs[GROUP_DIRS],
                      const struct trk_cgroup_limits *limits, struct trk_err *err)
{
    const char *cpu_dir = c->version == 2 && c->cpu[0] != '\0' ? dirs[0] : dirs[1];
    const char *pids_dir = c->version == 2 && c->pids[0] != '\0' ? dirs[0] : dirs[2];
    if (c->version > 0 && limits->memory_bytes > 0 &&
        set_memory(c, dirs[0], limits->memory_bytes) < 0) {
        return trk_err_errno(err, errno, "limiting memory in %s", dirs[0]);
    }
    if (cpu_dir != NULL && limits->cpu_milli > 0 && set_cpu(c, cpu_dir, limits->cpu_milli) < 0) {
        return trk_err_errno(err, errno, "limiting CPU in %s", cpu_dir);
    }
    if (pids_dir != NULL && limits->pids > 0 && set_pids(pids_dir, limits->pids) < 0) {
        return trk_err_errno(err, errno, "limiting processes in %s", pids_dir);
    }
    return 0;
}

int trk_cgroups_make(const struct trk_cgroups *c, const char *id,
                     const struct trk_cgroup_limits *limits, char *ret_files[TRK_CGROUP_PATHS_MAX],
                     struct trk_err *err)
{
    memset(ret_files, 0, TRK_CGROUP_PATHS_MAX * sizeof(ret_files[0]));
    char *dirs[GROUP_DIRS];
    group_dirs(c, id, dirs);
    int rc = 0;
    for (int i = 0; i < GROUP_DIRS && rc == 0; i++) {
        if (dirs[i] != NULL && mkdir(dirs[i], 0755) < 0 && errno != EEXIST) {
            rc = trk_err_errno(err, errno, "making control group %s", dirs[i]);
        }
    }
    if (rc == 0) {
        rc = set_limits(c, dirs, limits, err);
    }
    size_t count = 0;
    for (int i = 0; i < GROUP_DIRS; i++) {
        if (rc == 0 && dirs[i] != NULL) {
            ret_files[count++] = trk_xasprintf("%s/cgroup.procs", dirs[i]);
        }
        free(dirs[i]);
    }
    return rc;
}

void trk_cgroups_remove(const struct trk_cgroups *c, const char *id)
{
    char *dirs[GROUP_DIRS];
    group_dirs(c, id, dirs);
    for (int i = 0; i < GROUP_DIRS; i++) {
        if (dirs[i] != NULL) {
            (void)rmdir(dirs[i]);
            free(dirs[i]);
        }
    }
}

static size_t kill_members(const char *dir)
{
    trk_autofree char *path = trk_xasprintf("%s/cgroup.procs", dir);
    trk_autofree char *text = NULL;
    size_t len, count = 0;
    if (trk_file_read(path, 4 << 20, &text, &len, NULL) < 0) {
        return 0;
    }
    for (char *line = text; *line != '\0';) {
        char *end;
        long pid = strtol(line, &end, 10);
        if (end == line) {
            break;
        }
        if (pid > 1 && pid != getpid() && kill((pid_t)pid, SIGKILL) == 0) {
            count++;
        }
        line = end + (*end == '\n');
    }
    return count;
}

size_t trk_cgroups_kill(const struct trk_cgroups *c, const char *id)
{
    char *dirs[GROUP_DIRS];
    group_dirs(c, id, dirs);
    size_t count = 0;
    for (int i = 0; i < GROUP_DIRS; i++) {
        if (dirs[i] != NULL) {
            if (c->version == 2) {
                (void)write_parameter(dirs[i], "cgroup.kill", "1");
            }
            count += kill_members(dirs[i]);
            free(dirs[i]);
        }
    }
    return count;
}

int64_t trk_cgroups_oom_kills(const struct trk_cgroups *c, const char *id)
{
    if (c->version == 0) {
        return 0;
    }
    trk_autofree char *path = trk_xasprintf(
        "%s/%s/%s", c->memory, id, c->version == 2 ? "memory.events" : "memory.oom_control");
    trk_autofree char *text = NULL;
    size_t len;
    if (trk_file_read(path, 65536, &text, &len, NULL) < 0) {
        return 0;
    }
    const char *found = strstr(text, "oom_kill ");
    return found != NULL ? strtoll(found + strlen("oom_kill "), NULL, 10) : 0;
}
