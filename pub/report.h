/*
 * report.h - what lifecycle is told back: when tokens were used and jobs were called last, and how
 * often since the last report.
 */
#ifndef PUB_REPORT_H
#define PUB_REPORT_H

#include <jansson.h>

#include "pub/table.h"

#define PUB_REPORT_ITEMS_MAX 20000

/* Takes what was noted since the last time out of the table: {"tokens":[{"d","t"}], "jobs":
 * [{"name","version","t","calls"}]}, at most so many of each; the rest stays. NULL: nothing.
 * *ret_more: there is a rest. Returns owned. The table's writer only. */
json_t *pub_report_take(const struct pub_table *table, bool *ret_more);

#endif
