/*
 * housekeeping.h - the thread that removes what nobody needs any more: unused blobs, cached layers
 * past their retention, idle uploads, old logs; and, at start, workspaces that a killed process
 * left.
 */
#ifndef IMAGE_BUILDER_HOUSEKEEPING_H
#define IMAGE_BUILDER_HOUSEKEEPING_H

#include "image_builder/image_builder.h"

#define BLOB_GRACE_S   3600 /* a push may take that long between its first blob and its manifest */
#define BUILD_LOGS_MAX 2000

struct housekeeping;
struct housekeeping *housekeeping_start(struct image_builder *ib);
void housekeeping_stop(struct housekeeping *keeping); /* takes NULL */
/* One round of it, now. */
int housekeeping_round(struct image_builder *ib, int64_t grace_s, struct store_gc_result *ret,
                       struct trk_err *err) TRK_MUST_CHECK;

#endif
