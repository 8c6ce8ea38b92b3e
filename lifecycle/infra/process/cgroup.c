#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "lifecycle/infra/process/internal.h"

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

/* Where jobs' groups go in a v1 hierarchy: below our own group, so that what limits us limits them.
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

static bool detect_v2(struct cgroups *c)
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
    snprintf(c->memory, sizeof(c->memory), "%s/racetrack", parent);
    if (mkdir(c->memory, 0755) < 0 && errno != EEXIST) {
        return false;
    }
    bool has_memory = write_parameter(c->memory, "cgroup.subtree_control", "+memory") == 0;
    bool has_cpu = write_parameter(c->memory, "cgroup.subtree_control", "+cpu") == 0;
    if (!has_memory) {
        (void)rmdir(c->memory);
        return false;
    }
    if (has_cpu) {
        memcpy(c->cpu, c->memory, sizeof(c->cpu));
    }
    c->version = 2;
    return true;
}

void cgroups_detect(struct cgroups *c)
{
    memset(c, 0, sizeof(*c));
    if (detect_v2(c)) {
        return;
    }
    memset(c, 0, sizeof(*c));
    if (detect_v1("memory", "memory.limit_in_bytes", c->memory, sizeof(c->memory))) {
        c->version = 1;
        (void)detect_v1("cpu", "cpu.cfs_quota_us", c->cpu, sizeof(c->cpu));
    }
}

/* The generation's folders: one with v2, two with v1. Owned strings, NULL when there is none. */
static void group_dirs(const struct cgroups *c, const char *id, char *out[2])
{
    out[0] = c->version > 0 ? trk_xasprintf("%s/%s", c->memory, id) : NULL;
    out[1] = c->version == 1 && c->cpu[0] != '\0' ? trk_xasprintf("%s/%s", c->cpu, id) : NULL;
}

static int set_memory(const struct cgroups *c, const char *dir, int64_t bytes)
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

static int set_cpu(const struct cgroups *c, const char *dir, int64_t milli)
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

int cgroups_make(const struct cgroups *c, const char *id, int64_t memory_max_bytes,
                 int64_t cpu_max_milli, char *ret_files[CGROUP_PATHS_MAX], struct trk_err *err)
{
    memset(ret_files, 0, CGROUP_PATHS_MAX * sizeof(ret_files[0]));
    char *dirs[2];
    group_dirs(c, id, dirs);
    int rc = 0;
    for (int i = 0; i < 2 && rc == 0; i++) {
        if (dirs[i] != NULL && mkdir(dirs[i], 0755) < 0 && errno != EEXIST) {
            rc = trk_err_errno(err, errno, "making control group %s", dirs[i]);
        }
    }
    if (rc == 0 && c->version > 0 && memory_max_bytes > 0 &&
        set_memory(c, dirs[0], memory_max_bytes) < 0) {
        rc = trk_err_errno(err, errno, "limiting memory in %s", dirs[0]);
    }
    const char *cpu_dir = c->version == 2 && c->cpu[0] != '\0' ? dirs[0] : dirs[1];
    if (rc == 0 && cpu_dir != NULL && cpu_max_milli > 0 && set_cpu(c, cpu_dir, cpu_max_milli) < 0) {
        rc = trk_err_errno(err, errno, "limiting CPU in %s", cpu_dir);
    }
    size_t count = 0;
    for (int i = 0; i < 2; i++) {
        if (rc == 0 && dirs[i] != NULL) {
            ret_files[count++] = trk_xasprintf("%s/cgroup.procs", dirs[i]);
        }
        free(dirs[i]);
    }
    return rc;
}

void cgroups_remove(const struct cgroups *c, const char *id)
{
    char *dirs[2];
    group_dirs(c, id, dirs);
    for (int i = 0; i < 2; i++) {
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

size_t cgroups_kill(const struct cgroups *c, const char *id)
{
    char *dirs[2];
    group_dirs(c, id, dirs);
    size_t count = 0;
    for (int i = 0; i < 2; i++) {
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

int64_t cgroups_oom_kills(const struct cgroups *c, const char *id)
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
