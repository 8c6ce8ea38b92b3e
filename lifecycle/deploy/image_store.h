/*
 * image_store.h - what lifecycle asks of image_builder's stores. Any thread.
 */
#ifndef LIFECYCLE_DEPLOY_IMAGE_STORE_H
#define LIFECYCLE_DEPLOY_IMAGE_STORE_H

#include <jansson.h>
#include <stdint.h>

#include "libtrack/base/err.h"

struct lifecycle;

/* Puts a source into the store: size_bytes of `fd` from its begin, whose digest is `digest`. Waits
 * a while for a store that is away; TRK_UNAVAILABLE then. It is durable when this returns, and kept
 * as long as a job or a deployment under way refers to it (and for a grace time). */
int image_store_put_source(const struct lifecycle *lc, int fd, int64_t size_bytes,
                           const char *digest, struct trk_err *err) TRK_MUST_CHECK;

/* Tells the store all that is in use (see store/retention.h); others go there when they are old. It
 * does so by itself afterwards: this does not wait for it. */
struct trk_http_client;
int image_store_retain(const struct lifecycle *lc, struct trk_http_client *client,
                       const json_t *in_use, struct trk_err *err) TRK_MUST_CHECK;

#endif
