#include "lifecycle/deploy/rules.h"

#include "lifecycle/domain/permission.h"
#include "lifecycle/store/job.h"
#include "lifecycle/store/setting.h"

int rules_require(const struct subject *who, const char *scope, const char *name,
                  const char *version, struct trk_err *err)
{
    if (subject_can(who, scope, name, version, NULL)) {
        return 0;
    }
    char description[600];
    (void)subject_describe(who, description, sizeof(description));
    return trk_err_set(err, TRK_FORBIDDEN,
                       "no permission to do this operation: %s needs the scope %s on job %s %s",
                       description, scope, name, version);
}

int rules_may_deploy(struct trk_pg *conn, void *mem, const struct subject *who, const char *name,
                     const char *version, struct trk_err *err)
{
    const char *family_id;
    int rc = family_store_get(conn, mem, name, &family_id, err);
    if (rc == TRK_NOT_FOUND) {
        return rules_require(who, SCOPE_DEPLOY_NEW_FAMILY, name, version, err);
    }
    return rc < 0 ? rc : rules_require(who, SCOPE_DEPLOY_JOB, name, version, err);
}

int rules_refuse_in_maintenance(struct trk_pg *conn, struct trk_err *err)
{
    bool is_on;
    int rc = setting_store_is_maintenance(conn, &is_on, err);
    if (rc == 0 && is_on) {
        return trk_err_set(err, TRK_INVALID, "Racetrack is in maintenance mode; try again later");
    }
    return rc;
}
