#include "lifecycle/store/migrations.h"

#include "libtrack/base/mem.h"

static const struct trk_migration migrations[] = {
#include "migrations.inc"
};

int migrations_run(struct trk_pg_pool *pool, unsigned *ret_applied, struct trk_err *err)
{
    return trk_pg_migrate(pool, migrations, TRK_COUNT(migrations), ret_applied, err);
}
