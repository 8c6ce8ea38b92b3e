/*
 * depot.h - the depot (build/depot.h) of builds that run in the process that owns the stores.
 */
#ifndef IMAGE_BUILDER_STORE_DEPOT_H
#define IMAGE_BUILDER_STORE_DEPOT_H

#include "image_builder/build/depot.h"

struct store;
struct depot *depot_new(struct store *images, struct store *sources); /* borrows */
void depot_free(struct depot *depot);                                 /* takes NULL */

#endif
