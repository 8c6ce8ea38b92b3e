#include "lifecycle/infra/target.h"

#include <stdlib.h>
#include <string.h>

/* The better one comes first. */
static int rank_of(enum infra_state state)
{
    static const int ranks[] = {
        [INFRA_RUNNING] = 0, [INFRA_STARTING] = 1, [INFRA_STOPPING] = 2,
        [INFRA_BACKOFF] = 3, [INFRA_FAILED] = 4,   [INFRA_GONE] = 5,
    };
    return ranks[state];
}

void infra_sum_up(const struct infra_observation *list, size_t count, struct infra_observation *ret)
{
    *ret = list[0];
    for (size_t i = 1; i < count; i++) {
        if (rank_of(list[i].state) < rank_of(ret->state)) {
            ret->state = list[i].state;
            memcpy(ret->address, list[i].address, sizeof(ret->address));
        }
        if (ret->reason[0] == '\0') {
            memcpy(ret->reason, list[i].reason, sizeof(ret->reason));
        }
        ret->restarts += list[i].restarts;
    }
}

int infra_observe(const struct infra_target *t, const char *id, struct infra_observation *ret,
                  struct trk_err *err)
{
    struct infra_observation *list = NULL;
    size_t count = 0;
    int rc = t->list(t, id, &list, &count, err);
    if (rc == 0 && count == 0) {
        rc = trk_err_set(err, TRK_NOT_FOUND, "generation %s is not known to the target %s", id,
                         t->name);
    }
    if (rc == 0) {
        infra_sum_up(list, count, ret);
    }
    free(list);
    return rc;
}
