#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "lifecycle/infra/process/internal.h"

/* Ids become folder names: nothing but a UUID's characters, and the number of a replica. */
bool workload_id_is_valid(const char *id)
{
    size_t len = strspn(id, "0123456789abcdef-");
    size_t digits = id[len] == '.' ? strspn(id + len + 1, "0123456789") : 0;
    return len >= 8 && len <= 36 && id[0] != '-' && digits <= 2 &&
           id[len + (digits > 0 ? digits + 1 : 0)] == '\0';
}

char *workload_path(const struct process_target *p, const char *id, const char *file)
{
    return file != NULL ? trk_xasprintf("%s/%s/%s", p->jobs_dir, id, file)
                        : trk_xasprintf("%s/%s", p->jobs_dir, id);
}

int workload_lock(const struct process_target *p, const char *id, int *ret_fd, struct trk_err *err)
{
    if (!workload_id_is_valid(id)) {
        return trk_err_set(err, TRK_INVALID, "%s is no generation id", id);
    }
    trk_autofree char *path = trk_xasprintf("%s/%s", p->locks_dir, id);
    for (;;) {
        trk_autoclose int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0) {
            return trk_err_errno(err, errno, "locking %s", path);
        }
        while (flock(fd, LOCK_EX) < 0) {
            if (errno != EINTR) {
                return trk_err_errno(err, errno, "locking %s", path);
            }
        }
        /* Whoever held it may have removed the file: then the lock is on nothing. */
        struct stat mine, current;
        if (fstat(fd, &mine) == 0 && stat(path, &current) == 0 && mine.st_ino == current.st_ino) {
            *ret_fd = TRK_STEAL_FD(fd);
            return 0;
        }
    }
}

void workload_lock_forget(const struct process_target *p, const char *id)
{
    trk_autofree char *path = trk_xasprintf("%s/%s", p->locks_dir, id);
    (void)unlink(path);
}

int workload_load(const struct process_target *p, const char *id, json_t **ret, struct trk_err *err)
{
    if (!workload_id_is_valid(id)) {
        return trk_err_set(err, TRK_NOT_FOUND, "%s is no generation id", id);
    }
    trk_autofree char *path = workload_path(p, id, "workload.json");
    trk_autofree char *text = NULL;
    size_t len;
    int rc = trk_file_read(path, 4 << 20, &text, &len, err);
    if (rc < 0) {
        return rc;
    }
    json_t *doc = NULL;
    if (trk_json_parse(text, len, &doc, err) < 0 || !json_is_object(doc)) {
        json_decref(doc);
        return trk_err_set(err, TRK_INVALID, "%s is damaged", path);
    }
    *ret = doc;
    return 0;
}

int workload_lock_known(const struct process_target *p, const char *id, int *ret_fd, json_t **ret,
                        struct trk_err *err)
{
    trk_autoclose int fd = -1;
    int rc = workload_lock(p, id, &fd, err);
    if (rc < 0) {
        return rc;
    }
    rc = workload_load(p, id, ret, err);
    if (rc < 0) {
        if (rc == TRK_NOT_FOUND) {
            workload_lock_forget(p, id); /* removed meanwhile: locking has made the file anew */
        }
        return rc;
    }
    *ret_fd = TRK_STEAL_FD(fd);
    return 0;
}

/* Atomic for readers, for a killed lifecycle and for a power cut. */
int workload_save(const struct process_target *p, const char *id, const json_t *doc,
                  struct trk_err *err)
{
    trk_autofree char *path = workload_path(p, id, "workload.json");
    trk_autofree char *text = trk_json_text(doc);
    return trk_file_write(path, text, strlen(text), 0600, err);
}

int workload_ids(const struct process_target *p, char (**ret)[40], size_t *ret_count,
                 struct trk_err *err)
{
    DIR *dir = opendir(p->jobs_dir);
    if (dir == NULL) {
        return trk_err_errno(err, errno, "listing %s", p->jobs_dir);
    }
    char(*ids)[40] = NULL;
    size_t count = 0, size = 0;
    struct dirent *entry;
    errno = 0;
    while ((entry = readdir(dir)) != NULL) {
        if (workload_id_is_valid(entry->d_name)) {
            if (count == size) {
                size = size == 0 ? 16 : 2 * size;
                ids = trk_xrealloc(ids, size * sizeof(*ids));
            }
            snprintf(ids[count++], sizeof(*ids), "%.39s", entry->d_name);
        }
        errno = 0;
    }
    int errnum = errno;
    (void)closedir(dir);
    if (errnum != 0) {
        free(ids);
        return trk_err_errno(err, errnum, "listing %s", p->jobs_dir);
    }
    *ret = ids;
    *ret_count = count;
    return 0;
}

const char *workload_text(const json_t *doc, const char *key)
{
    return trk_json_string_or(doc, key, "");
}

int64_t workload_int(const json_t *doc, const char *key)
{
    return trk_json_int_or(doc, key, 0);
}

bool workload_is(const json_t *doc, const char *state)
{
    return strcmp(workload_text(doc, "state"), state) == 0;
}

void workload_set_text(json_t *doc, const char *key, const char *value)
{
    json_t *text = json_string(value);
    if (text == NULL) { /* not UTF-8: a job's last words may be anything */
        trk_autofree char *repaired = trk_xstrdup(value);
        trk_utf8_repair(repaired, strlen(repaired));
        text = json_string(repaired);
    }
    (void)json_object_set_new(doc, key, text);
}

void workload_set_int(json_t *doc, const char *key, int64_t value)
{
    (void)json_object_set_new(doc, key, json_integer(value));
}

bool workload_process(const struct process_target *p, const json_t *doc, struct trk_proc *ret)
{
    int64_t pid = workload_int(doc, "pid");
    return pid > 0 && strcmp(workload_text(doc, "boot_id"), p->boot_id) == 0 &&
           trk_proc_adopt((pid_t)pid, (uint64_t)workload_int(doc, "start_ticks"), ret, NULL) == 0;
}
