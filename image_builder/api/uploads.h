/*
 * uploads.h - upload sessions of the registry: a blob that comes in pieces. Any thread.
 *
 * A session is used by one request at a time (uploads_take … uploads_release). Sessions live in
 * memory and in a temporary file of the store, and end with the process; a client that comes back
 * later is told that the session is unknown and begins again. Unused ones end after an hour.
 */
#ifndef IMAGE_BUILDER_API_UPLOADS_H
#define IMAGE_BUILDER_API_UPLOADS_H

#include "image_builder/store/store.h"
#include "libtrack/base/clock.h"

#define UPLOADS_MAX    256
#define UPLOAD_IDLE_NS (INT64_C(3600) * TRK_NS_PER_S)

struct uploads;
struct upload {
    char id[TRK_UUID_SIZE];
    char repository[256];
    struct store_temp *temp;
    bool is_taken;
    int64_t used_ns;
    struct uploads *owner;
    struct upload *next;
};

struct uploads *uploads_new(struct store *store);
void uploads_free(struct uploads *uploads);
/* A new session, taken. TRK_TOO_MANY, TRK_NO_SPACE. */
int uploads_start(struct uploads *uploads, const char *repository, struct upload **ret,
                  struct trk_err *err) TRK_MUST_CHECK;
/* TRK_NOT_FOUND; TRK_CONFLICT while another request uses it. */
int uploads_take(struct uploads *uploads, const char *id, const char *repository,
                 struct upload **ret, struct trk_err *err) TRK_MUST_CHECK;
void uploads_release(struct uploads *uploads, struct upload *upload);
/* Ends a taken session and drops what was not committed. */
void uploads_end(struct uploads *uploads, struct upload *upload);
/* Ends sessions that nobody used for idle_ns. */
void uploads_expire(struct uploads *uploads, int64_t idle_ns);

#endif
