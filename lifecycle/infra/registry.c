#include "lifecycle/infra/registry.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/base/clock.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "lifecycle/infra/target.h"

#define INSTANCE_FILE "instance"

const struct infra_target *infra_named(const struct infra_registry *r, const char *name)
{
    for (size_t i = 0; i < r->count; i++) {
        if (strcmp(r->list[i]->name, name) == 0) {
            return r->list[i];
        }
    }
    return NULL;
}

const struct infra_target *infra_reached(const struct infra_registry *r, const char *instance)
{
    for (size_t i = 0; instance != NULL && i < r->count; i++) {
        if (strcmp(r->list[i]->instance, instance) == 0) {
            return r->list[i];
        }
    }
    return NULL;
}

char *infra_instances(const struct infra_registry *r)
{
    struct trk_buf buf;
    trk_buf_init(&buf, 1 << 16);
    for (size_t i = 0; i < r->count; i++) {
        (void)trk_buf_addf(&buf, "%s%s", i > 0 ? "\n" : "", r->list[i]->instance);
    }
    char *text = trk_xstrdup(buf.data);
    trk_buf_fini(&buf);
    return text;
}

/* Whole at once, and by one of several that start together. */
static int make_instance_file(const char *folder, const char *path, struct trk_err *err)
{
    char uuid[TRK_UUID_SIZE];
    trk_uuid4(uuid);
    trk_autofree char *temporary = trk_xasprintf("%s/.%s-%s", folder, INSTANCE_FILE, uuid);
    int rc = trk_file_write(temporary, uuid, strlen(uuid), 0644, err);
    if (rc == 0 && link(temporary, path) < 0 && errno != EEXIST) {
        rc = trk_err_errno(err, errno, "making %s", path);
    }
    (void)unlink(temporary);
    return rc;
}

int infra_instance_of_folder(const char *kind, const char *folder, char **ret, struct trk_err *err)
{
    trk_autofree char *path = trk_xasprintf("%s/%s", folder, INSTANCE_FILE);
    trk_autofree char *id = NULL;
    size_t len;
    int rc = trk_path_exists(path) ? 0 : make_instance_file(folder, path, err);
    rc = rc == 0 ? trk_file_read(path, TRK_UUID_SIZE, &id, &len, err) : rc;
    if (rc == 0 && len < TRK_UUID_SIZE - 1) {
        rc = trk_err_set(err, TRK_INVALID,
                         "%s is damaged: it names this installation's jobs in the database "
                         "(registry_jobgeneration.target_instance, after '%s:'); write it there "
                         "again",
                         path, kind);
    }
    if (rc == 0) {
        *ret = trk_xasprintf("%s:%.*s", kind, TRK_UUID_SIZE - 1, id);
    }
    return rc;
}

int infra_logs(const struct infra_registry *r, const char *instance, const char *generation_id,
               size_t tail, struct trk_buf *out, struct trk_err *err)
{
    const struct infra_target *t = infra_reached(r, instance);
    if (t == NULL) {
        return trk_err_set(err, TRK_UNAVAILABLE,
                           "the job runs on %s, which this lifecycle does not reach",
                           instance != NULL ? instance : "an unknown infrastructure target");
    }
    return t->logs(t, generation_id, tail, out, err);
}
