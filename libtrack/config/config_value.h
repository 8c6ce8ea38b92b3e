/*
 * config_value.h - what config.c and config_print.c share: where a setting's value comes from.
 */
#ifndef LIBTRACK_CONFIG_VALUE_H
#define LIBTRACK_CONFIG_VALUE_H

#include <jansson.h>

#include "libtrack/config/config.h"

enum trk_config_source { TRK_CONFIG_FROM_DEFAULT, TRK_CONFIG_FROM_FILE, TRK_CONFIG_FROM_ENV };

struct trk_config_value {
    enum trk_config_source source;
    const char *text;     /* of the default or the environment; borrows */
    const json_t *member; /* of the file; borrows */
};

/* The file that CONFIG_FILE names; an empty object when there is none. *ret owned. */
int trk_config_read_file(json_t **ret, struct trk_err *err) TRK_MUST_CHECK;
void trk_config_resolve(const struct trk_config_entry *entry, const json_t *file,
                        struct trk_config_value *ret);

#endif
