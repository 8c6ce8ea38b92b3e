#include "lifecycle/store/leader.h"

bool leader_store_try(struct trk_pg *conn, const char *instance)
{
    trk_pg_result_auto struct trk_pg_result *res = NULL;
    return trk_pg_query(conn, &res, NULL,
                        "select pg_try_advisory_lock(hashtextextended('racetrack supervisor ' || "
                        "current_schema() || $1, 0)) as got",
                        "s", instance) == 0 &&
           trk_pg_bool(res, 0, "got");
}

bool leader_store_is_alive(struct trk_pg *conn)
{
    return trk_pg_query(conn, NULL, NULL, "select 1", "") == 0;
}
