/*
 * registry.h - the infrastructure targets that this process reaches. Filled at start, read-only
 * afterwards; any thread.
 */
#ifndef LIFECYCLE_INFRA_REGISTRY_H
#define LIFECYCLE_INFRA_REGISTRY_H

#include <stddef.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"

struct infra_target;

struct infra_registry {
    const struct infra_target *const *list;
    size_t count;
};

/* Both borrow, valid until the process ends; NULL when there is none. A name ("process") says what
 * kind of place is meant, an instance which one it is. */
const struct infra_target *infra_named(const struct infra_registry *registry, const char *name);
const struct infra_target *infra_reached(const struct infra_registry *registry,
                                         const char *instance);
/* The instances, a line each; owned. */
char *infra_instances(const struct infra_registry *registry);
/* The name of an instance that lives in a folder: the same for all that use the folder, made at the
 * first time. *ret owned. */
int infra_instance_of_folder(const char *kind, const char *folder, char **ret,
                             struct trk_err *err) TRK_MUST_CHECK;
/* Appends the last `tail` lines (0: all kept) of the generation's output; TRK_UNAVAILABLE when the
 * instance that it runs on is not reached from here. */
int infra_logs(const struct infra_registry *registry, const char *instance,
               const char *generation_id, size_t tail, struct trk_buf *out,
               struct trk_err *err) TRK_MUST_CHECK;

#endif
