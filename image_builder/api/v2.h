/*
 * v2.h - the registry's HTTP interface, distribution-spec 1.1. Only for image_builder/api/v2_*.c.
 *
 * All paths below /v2/ are one route a method: a repository's name has slashes, so the path is read
 * here. A request's state lives from its first body byte to its answer.
 */
#ifndef IMAGE_BUILDER_API_V2_H
#define IMAGE_BUILDER_API_V2_H

#include "image_builder/image_builder.h"
#include "image_builder/store/store.h"
#include "libtrack/base/buf.h"

enum v2_kind {
    V2_NOTHING,
    V2_CATALOG,   /* _catalog */
    V2_TAGS,      /* <name>/tags/list */
    V2_BLOB,      /* <name>/blobs/<digest> */
    V2_UPLOADS,   /* <name>/blobs/uploads/ */
    V2_UPLOAD,    /* <name>/blobs/uploads/<id> */
    V2_MANIFEST,  /* <name>/manifests/<reference> */
    V2_REFERRERS, /* <name>/referrers/<digest> */
};
struct v2_target {
    enum v2_kind kind;
    char repository[256];
    char reference[192]; /* digest, tag or upload id */
};
/* `path` is what follows "/v2/". False: there is nothing of that form (also for a bad name). */
bool v2_target_parse(const char *path, struct v2_target *ret);

struct upload;
struct v2_state {
    struct v2_target target;
    bool is_begun, is_out_of_order; /* of an upload's body */
    const char *code;               /* of the error answer; NULL: by the status */
    struct upload *upload;
    struct store_temp *temp; /* a blob that comes with one POST */
    struct trk_buf manifest;
};
/* Of this request; made when it is first asked for. */
struct v2_state *v2_state(struct trk_request *req);

/* Sets err and the OCI error code of the answer; returns the code. */
int v2_fail(struct trk_request *req, enum trk_code code, const char *oci_code, struct trk_err *err,
            const char *fmt, ...) TRK_PRINTF(5, 6);
/* Answers an error whose status no trk_code has (416). Returns 0. */
int v2_reply_error(struct trk_request *req, int status, const char *oci_code, const char *message);
int v2_unsupported(struct trk_request *req, struct trk_err *err);
/* Location: /v2/<repository>/<rest>. */
void v2_location(struct trk_request *req, const char *repository, const char *rest);

int v2_get_blob(struct trk_request *req, struct trk_err *err);
int v2_delete_blob(struct trk_request *req, struct trk_err *err);
int v2_post_uploads(struct trk_request *req, struct trk_err *err);
int v2_get_upload(struct trk_request *req, struct trk_err *err);
int v2_patch_upload(struct trk_request *req, struct trk_err *err);
int v2_put_upload(struct trk_request *req, struct trk_err *err);
int v2_delete_upload(struct trk_request *req, struct trk_err *err);
int v2_get_manifest(struct trk_request *req, struct trk_err *err);
int v2_put_manifest(struct trk_request *req, struct trk_err *err);
int v2_delete_manifest(struct trk_request *req, struct trk_err *err);
int v2_get_list(struct trk_request *req, struct trk_err *err);

/* Bodies, as they come. */
int v2_begin_upload_body(struct trk_request *req, struct trk_err *err);
int v2_add_upload_body(struct trk_request *req, const void *bytes, size_t len, struct trk_err *err);
int v2_add_manifest_body(struct trk_request *req, const void *bytes, size_t len,
                         struct trk_err *err);
void v2_state_end_upload(struct v2_state *state);

#endif
