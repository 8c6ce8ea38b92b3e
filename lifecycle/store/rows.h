/*
 * rows.h - small helpers of the store files: result columns onto a talloc context.
 */
#ifndef LIFECYCLE_STORE_ROWS_H
#define LIFECYCLE_STORE_ROWS_H

#include <talloc.h>

#include "libtrack/pg/pg.h"

/* NULL for SQL null. */
static inline const char *row_text(void *mem, const struct trk_pg_result *res, int row,
                                   const char *column)
{
    const char *text = trk_pg_text(res, row, column);
    if (text == NULL) {
        return NULL;
    }
    const char *copy = talloc_strdup(mem, text);
    if (copy == NULL) {
        trk_die("out of memory");
    }
    return copy;
}

/* Zeroed array of `count`; never NULL, also for 0. */
#define row_array(mem, type, count)                                                                \
    ({                                                                                             \
        type *array_ = talloc_zero_array(mem, type, (unsigned)(count) + 1);                        \
        if (array_ == NULL) {                                                                      \
            trk_die("out of memory");                                                              \
        }                                                                                          \
        array_;                                                                                    \
    })

#endif
