#include "lifecycle/store/esc.h"

#include "lifecycle/store/rows.h"

int esc_store_list(struct trk_pg *conn, void *mem, struct esc **ret, size_t *ret_count,
                   struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err, "select id, name from registry_esc order by name, id",
                          "");
    if (rc < 0) {
        return rc;
    }
    int count = trk_pg_rows(res);
    struct esc *escs = row_array(mem, struct esc, count);
    for (int row = 0; row < count; row++) {
        escs[row].id = row_text(escs, res, row, "id");
        escs[row].name = row_text(escs, res, row, "name");
    }
    *ret = escs;
    *ret_count = (size_t)count;
    return 0;
}

int esc_store_get(struct trk_pg *conn, void *mem, const char *id, struct esc **ret,
                  struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err, "select id, name from registry_esc where id = $1", "s",
                          id);
    if (rc < 0) {
        return rc;
    }
    if (trk_pg_rows(res) == 0) {
        return trk_err_set(err, TRK_NOT_FOUND, "no ESC with id %s", id);
    }
    struct esc *esc = row_array(mem, struct esc, 1);
    esc->id = row_text(esc, res, 0, "id");
    esc->name = row_text(esc, res, 0, "name");
    *ret = esc;
    return 0;
}

int esc_store_create(struct trk_pg *conn, const char *id, const char *name, struct trk_err *err)
{
    int rc = trk_pg_query(conn, NULL, err,
                          "insert into registry_esc (id, name) values ($1, $2) on conflict do "
                          "nothing",
                          "ss", id, name);
    return rc == 0 && trk_pg_affected(conn) == 0
               ? trk_err_set(err, TRK_CONFLICT, "there is an ESC with id %s already", id)
               : rc;
}
