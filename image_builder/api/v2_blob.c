#include <ctype.h>
#include <string.h>
#include <talloc.h>

#include "image_builder/api/uploads.h"
#include "image_builder/api/v2.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

static int check_digest(struct trk_request *req, const char *digest, struct trk_err *err)
{
    if (digest == NULL || !trk_digest_is_valid(digest)) {
        return v2_fail(req, TRK_INVALID, "DIGEST_INVALID", err,
                       "a digest is sha256: and 64 hexadecimal digits");
    }
    return 0;
}

static int unknown_blob(struct trk_request *req, const char *digest, struct trk_err *err)
{
    return v2_fail(req, TRK_NOT_FOUND, "BLOB_UNKNOWN", err, "there is no blob %s", digest);
}

/* ---- getting ---- */

enum range { RANGE_NONE, RANGE_GOOD, RANGE_OUTSIDE };

static bool number(const char **at, int64_t *ret)
{
    char digits[20];
    size_t n = strspn(*at, "0123456789");
    if (n == 0 || n >= sizeof(digits)) {
        return false;
    }
    memcpy(digits, *at, n);
    digits[n] = '\0';
    *at += n;
    return trk_parse_int64(digits, 0, INT64_MAX, ret, NULL) == 0;
}

/* RFC 9110 §14.1.2, one range; what is not understood is as if it were not there. */
static enum range parse_range(const char *text, int64_t size, int64_t *ret_from, int64_t *ret_to)
{
    if (text == NULL || !trk_str_has_prefix(text, "bytes=")) {
        return RANGE_NONE;
    }
    text += strlen("bytes=");
    int64_t from, to = size - 1;
    bool is_suffix = *text == '-';
    if (is_suffix) {
        int64_t last;
        text++;
        if (!number(&text, &last) || *text != '\0') {
            return RANGE_NONE;
        }
        if (last == 0) {
            return RANGE_OUTSIDE;
        }
        from = last < size ? size - last : 0;
    } else {
        if (!number(&text, &from) || *text++ != '-') {
            return RANGE_NONE;
        }
        int64_t end;
        if (*text != '\0' && (!number(&text, &end) || *text != '\0' || end < from)) {
            return RANGE_NONE;
        }
        if (text[-1] != '-') {
            to = end < to ? end : to;
        }
    }
    if (from >= size) {
        return RANGE_OUTSIDE;
    }
    *ret_from = from;
    *ret_to = to;
    return RANGE_GOOD;
}

int v2_get_blob(struct trk_request *req, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    const char *digest = v2_state(req)->target.reference;
    trk_autoclose int fd = -1;
    int64_t size, from = 0, to = 0;
    int rc = check_digest(req, digest, err);
    if (rc == 0) {
        rc = store_blob_open(ib->store, digest, &fd, &size, err);
        if (rc == TRK_NOT_FOUND) {
            return unknown_blob(req, digest, err);
        }
    }
    if (rc < 0) {
        return rc;
    }
    (void)trk_reply_header(req, "Docker-Content-Digest", digest);
    (void)trk_reply_header(req, "Accept-Ranges", "bytes");
    char content_range[96];
    switch (parse_range(trk_req_header(req, "Range"), size, &from, &to)) {
    case RANGE_OUTSIDE:
        (void)snprintf(content_range, sizeof(content_range), "bytes */%lld", (long long)size);
        (void)trk_reply_header(req, "Content-Range", content_range);
        return v2_reply_error(req, 416, "SIZE_INVALID", "the range lies outside the blob");
    case RANGE_GOOD:
        (void)snprintf(content_range, sizeof(content_range), "bytes %lld-%lld/%lld",
                       (long long)from, (long long)to, (long long)size);
        (void)trk_reply_header(req, "Content-Range", content_range);
        return trk_reply_fd(req, 206, "application/octet-stream", TRK_STEAL_FD(fd), (uint64_t)from,
                            (uint64_t)(to - from + 1));
    default:
        return trk_reply_fd(req, 200, "application/octet-stream", TRK_STEAL_FD(fd), 0,
                            (uint64_t)size);
    }
}

int v2_delete_blob(struct trk_request *req, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    const char *digest = v2_state(req)->target.reference;
    int rc = check_digest(req, digest, err);
    if (rc < 0) {
        return rc;
    }
    rc = store_blob_delete(ib->store, digest, err);
    if (rc == TRK_NOT_FOUND) {
        return unknown_blob(req, digest, err);
    }
    if (rc == TRK_CONFLICT) {
        v2_state(req)->code = "DENIED";
    }
    return rc < 0 ? rc : trk_reply_empty(req, 202);
}

/* ---- uploading ---- */

void v2_state_end_upload(struct v2_state *state)
{
    if (state->upload != NULL) {
        uploads_release(state->upload->owner, state->upload);
        state->upload = NULL;
    }
}

static void drop_session(struct v2_state *state)
{
    struct upload *upload = TRK_STEAL(state->upload);
    uploads_end(upload->owner, upload);
}

/* "Content-Range: <from>-<to>" of a piece must begin where the upload stands. */
static bool is_in_order(struct trk_request *req, const struct upload *upload)
{
    const char *text = trk_req_header(req, "Content-Range");
    if (text == NULL) {
        return true;
    }
    int64_t from, to;
    return number(&text, &from) && *text++ == '-' && number(&text, &to) && *text == '\0' &&
           from <= to && from == store_temp_size(upload->temp);
}

static int take_session(struct trk_request *req, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    struct v2_state *state = v2_state(req);
    int rc = uploads_take(ib->uploads, state->target.reference, state->target.repository,
                          &state->upload, err);
    if (rc == TRK_NOT_FOUND) {
        state->code = "BLOB_UPLOAD_UNKNOWN";
    } else if (rc == TRK_CONFLICT) {
        state->code = "BLOB_UPLOAD_INVALID";
    }
    return rc;
}

int v2_begin_upload_body(struct trk_request *req, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    struct v2_state *state = v2_state(req);
    if (state->is_begun) {
        return 0;
    }
    state->is_begun = true;
    if (state->target.kind == V2_UPLOAD) {
        int rc = take_session(req, err);
        state->is_out_of_order = rc == 0 && !is_in_order(req, state->upload);
        return rc;
    }
    int rc = check_digest(req, trk_req_query(req, "digest"), err);
    return rc < 0 ? rc : store_temp_new(ib->store, &state->temp, err);
}

int v2_add_upload_body(struct trk_request *req, const void *bytes, size_t len, struct trk_err *err)
{
    struct v2_state *state = v2_state(req);
    int rc = v2_begin_upload_body(req, err);
    if (rc < 0 || state->is_out_of_order) {
        return rc; /* the answer comes with the end */
    }
    rc = store_temp_add(state->upload != NULL ? state->upload->temp : state->temp, bytes, len, err);
    if (rc < 0 && state->upload != NULL) { /* what the file holds is not known any more */
        drop_session(state);
    }
    return rc;
}

/* Tells where the upload stands and lets it go: the client may send its next piece as soon as it
 * has read the answer, before this request is cleaned up. */
static void leave_upload(struct trk_request *req)
{
    char rest[64], range[40];
    const struct upload *upload = v2_state(req)->upload;
    int64_t size = store_temp_size(upload->temp);
    (void)snprintf(rest, sizeof(rest), "blobs/uploads/%s", upload->id);
    (void)snprintf(range, sizeof(range), "0-%lld", (long long)(size > 0 ? size - 1 : 0));
    v2_location(req, upload->repository, rest);
    (void)trk_reply_header(req, "Range", range);
    (void)trk_reply_header(req, "Docker-Upload-UUID", upload->id);
    v2_state_end_upload(v2_state(req));
}

static int reply_created(struct trk_request *req, const char *digest)
{
    char rest[96];
    (void)snprintf(rest, sizeof(rest), "blobs/%s", digest);
    v2_location(req, v2_state(req)->target.repository, rest);
    (void)trk_reply_header(req, "Docker-Content-Digest", digest);
    return trk_reply_empty(req, 201);
}

static int reply_out_of_order(struct trk_request *req)
{
    leave_upload(req);
    return v2_reply_error(req, 416, "BLOB_UPLOAD_INVALID",
                          "the piece does not begin where the upload stands: see Range");
}

static int commit(struct trk_request *req, struct store_temp *temp, struct trk_err *err)
{
    const char *want = trk_req_query(req, "digest");
    char digest[TRK_DIGEST_SIZE];
    int rc = store_temp_commit(temp, want, digest, err);
    if (rc == TRK_INVALID) {
        v2_state(req)->code = "DIGEST_INVALID";
    }
    return rc < 0 ? rc : reply_created(req, digest);
}

int v2_post_uploads(struct trk_request *req, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    struct v2_state *state = v2_state(req);
    const char *mount = trk_req_query(req, "mount");
    if (trk_req_query(req, "digest") != NULL) {
        int rc = v2_begin_upload_body(req, err);
        return rc < 0 ? rc : commit(req, state->temp, err);
    }
    if (mount != NULL && trk_digest_is_valid(mount) && store_blob_has(ib->store, mount, NULL)) {
        return reply_created(req, mount); /* all repositories share the blobs */
    }
    int rc = uploads_start(ib->uploads, state->target.repository, &state->upload, err);
    if (rc < 0) {
        return rc;
    }
    leave_upload(req);
    return trk_reply_empty(req, 202);
}

int v2_get_upload(struct trk_request *req, struct trk_err *err)
{
    int rc = take_session(req, err);
    if (rc < 0) {
        return rc;
    }
    leave_upload(req);
    return trk_reply_empty(req, 204);
}

int v2_patch_upload(struct trk_request *req, struct trk_err *err)
{
    int rc = v2_begin_upload_body(req, err); /* an empty piece is one too */
    if (rc < 0) {
        return rc;
    }
    if (v2_state(req)->is_out_of_order) {
        return reply_out_of_order(req);
    }
    leave_upload(req);
    return trk_reply_empty(req, 202);
}

int v2_put_upload(struct trk_request *req, struct trk_err *err)
{
    struct v2_state *state = v2_state(req);
    int rc = check_digest(req, trk_req_query(req, "digest"), err);
    if (rc == 0) {
        rc = v2_begin_upload_body(req, err);
    }
    if (rc < 0) {
        return rc;
    }
    if (state->is_out_of_order) {
        return reply_out_of_order(req);
    }
    struct upload *upload = TRK_STEAL(state->upload);
    rc = commit(req, upload->temp, err);
    uploads_end(upload->owner, upload); /* after a wrong digest too: the bytes are of no use */
    return rc;
}

int v2_delete_upload(struct trk_request *req, struct trk_err *err)
{
    struct v2_state *state = v2_state(req);
    int rc = take_session(req, err);
    if (rc < 0) {
        return rc;
    }
    drop_session(state);
    return trk_reply_empty(req, 204);
}
