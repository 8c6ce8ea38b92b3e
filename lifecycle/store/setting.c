#include "lifecycle/store/setting.h"

#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

int setting_store_set(struct trk_pg *conn, const char *name, const json_t *value,
                      struct trk_err *err)
{
    trk_autofree char *text = trk_json_text(value);
    return trk_pg_query(conn, NULL, err,
                        "insert into registry_setting (name, value) values ($1, $2::jsonb) on "
                        "conflict (name) do update set value = excluded.value",
                        "ss", name, text);
}

int setting_store_is_maintenance(struct trk_pg *conn, bool *ret, struct trk_err *err)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    int rc = trk_pg_query(conn, &res, err,
                          "select value #>> '{}' as value from registry_setting where name = $1",
                          "s", SETTING_MAINTENANCE_MODE);
    if (rc < 0) {
        return rc;
    }
    const char *value = trk_pg_rows(res) > 0 ? trk_pg_text(res, 0, "value") : NULL;
    *ret = value != NULL && strcmp(value, "true") == 0;
    return 0;
}

int setting_store_refuse_in_maintenance(struct trk_pg *conn, struct trk_err *err)
{
    bool on;
    int rc = setting_store_is_maintenance(conn, &on, err);
    if (rc < 0) {
        return rc;
    }
    return on ? trk_err_set(err, TRK_UNAVAILABLE,
                            "Racetrack is in maintenance mode; try again when it is over")
              : 0;
}
