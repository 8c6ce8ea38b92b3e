/*
 * housekeeping.h - the thread that removes what nobody needs any more: images and sources that
 * lifecycle does not name, unused blobs, what was cached, idle uploads, old logs; and, at start,
 * workspaces that a killed process left.
 */
#ifndef IMAGE_BUILDER_HOUSEKEEPING_H
#define IMAGE_BUILDER_HOUSEKEEPING_H

#include "image_builder/image_builder.h"
#include "image_builder/store/store.h"

struct housekeeping;
struct housekeeping *housekeeping_start(struct image_builder *ib);
void housekeeping_stop(struct housekeeping *keeping); /* takes NULL */

/* What lifecycle still uses: {"images": ["<host>/<repository>:<tag>@<digest>"], "sources":
 * ["sha256:…"]}. Takes it; a round begins soon. Until it was told once, images and sources stay. */
void housekeeping_tell(struct housekeeping *keeping, json_t *in_use);
/* One round of it, now; in_use NULL: not told. *ret counts the blobs of both stores. */
int housekeeping_round(struct image_builder *ib, const json_t *in_use, int64_t grace_s,
                       struct store_gc_result *ret, struct trk_err *err) TRK_MUST_CHECK;

#endif
