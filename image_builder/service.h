/*
 * service.h - the whole service, started and stopped as one (by main and by tests).
 */
#ifndef IMAGE_BUILDER_SERVICE_H
#define IMAGE_BUILDER_SERVICE_H

#include "image_builder/image_builder.h"

struct service;

/* The stores alone, and what builds need: no port. Waits up to wait_ms for one that is ending. */
int service_open(const struct builder_config *config, int64_t wait_ms, struct service **ret,
                 struct trk_err *err) TRK_MUST_CHECK;
/* Opens the store, removes what a killed process left, listens. `config` borrows. */
int service_start(const struct builder_config *config, struct service **ret,
                  struct trk_err *err) TRK_MUST_CHECK;
int service_port(const struct service *service);
struct image_builder *service_builder(struct service *service);
/* Cancels builds, ends requests, closes the store. Frees. */
void service_stop(struct service *service);

#endif
