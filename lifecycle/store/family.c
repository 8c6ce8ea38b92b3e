#include <string.h>

#include "libtrack/base/clock.h"
#include "lifecycle/store/job.h"
#include "lifecycle/store/rows.h"
#include "lifecycle/store/subject.h"

int family_store_get(struct trk_pg *conn, void *mem, const char *name, const char **ret_id,
                     struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err, "select id from registry_jobfamily where name = $1", "s",
                          name);
    if (rc < 0) {
        return rc;
    }
    if (trk_pg_rows(res) == 0) {
        return trk_err_set(err, TRK_NOT_FOUND, "no job family named %s", name);
    }
    *ret_id = row_text(mem, res, 0, "id");
    return 0;
}

int family_store_ensure(struct trk_pg *conn, void *mem, const char *name, const char **ret_id,
                        bool *ret_is_new, struct trk_err *err)
{
    char id[TRK_UUID_SIZE];
    trk_uuid4(id);
    int rc = trk_pg_query(conn, NULL, err,
                          "insert into registry_jobfamily (id, name) values ($1, $2) on conflict "
                          "do nothing",
                          "ss", id, name);
    if (rc < 0) {
        return rc;
    }
    *ret_is_new = trk_pg_affected(conn) > 0;
    return family_store_get(conn, mem, name, ret_id, err);
}

int family_store_token(struct trk_pg *conn, void *mem, const char *name, const char **ret_token,
                       struct trk_err *err)
{
    const char *id;
    const char *subject_id;
    int rc = family_store_get(conn, mem, name, &id, err);
    if (rc == 0) {
        rc = subject_store_ensure(conn, mem, TRK_SUBJECT_JOB_FAMILY, id, &subject_id, err);
    }
    if (rc == 0) {
        rc = token_store_current(conn, mem, subject_id, ret_token, err);
    }
    return rc < 0 ? trk_err_wrap(err, "token of job family %s", name) : 0;
}

int family_store_list(struct trk_pg *conn, void *mem, struct family **ret, size_t *ret_count,
                      struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err, "select id, name from registry_jobfamily order by name",
                          "");
    if (rc < 0) {
        return rc;
    }
    int count = trk_pg_rows(res);
    struct family *families = row_array(mem, struct family, count);
    for (int row = 0; row < count; row++) {
        families[row].id = row_text(families, res, row, "id");
        families[row].name = row_text(families, res, row, "name");
    }
    *ret = families;
    *ret_count = (size_t)count;
    return 0;
}
