#include <string.h>

#include "image_builder/api/v2.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

static int check_reference(struct trk_request *req, struct trk_err *err)
{
    const char *reference = v2_state(req)->target.reference;
    if (strchr(reference, ':') != NULL && !trk_digest_is_valid(reference)) {
        return v2_fail(req, TRK_INVALID, "DIGEST_INVALID", err,
                       "a digest is sha256: and 64 hexadecimal digits");
    }
    if (strchr(reference, ':') == NULL && !trk_oci_tag_is_valid(reference)) {
        return v2_fail(req, TRK_INVALID, "TAG_INVALID", err, "not a valid tag: %s", reference);
    }
    return 0;
}

int v2_get_manifest(struct trk_request *req, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    const struct v2_target *target = &v2_state(req)->target;
    char *bytes;
    size_t len;
    trk_autofree char *type = NULL;
    char digest[TRK_DIGEST_SIZE];
    int rc = check_reference(req, err);
    if (rc < 0) {
        return rc;
    }
    rc = store_manifest_get(ib->store, target->repository, target->reference, &bytes, &len, &type,
                            digest, err);
    if (rc == TRK_NOT_FOUND) {
        return v2_fail(req, TRK_NOT_FOUND, "MANIFEST_UNKNOWN", err, "%s has no manifest %s",
                       target->repository, target->reference);
    }
    if (rc < 0) {
        return rc;
    }
    (void)trk_reply_header(req, "Docker-Content-Digest", digest);
    return trk_reply_bytes(req, 200, type, bytes, len);
}

int v2_add_manifest_body(struct trk_request *req, const void *bytes, size_t len,
                         struct trk_err *err)
{
    if (trk_buf_add(&v2_state(req)->manifest, bytes, len) < 0) {
        return v2_fail(req, TRK_TOO_LARGE, "MANIFEST_INVALID", err,
                       "a manifest may have %u bytes at most", STORE_MANIFEST_MAX);
    }
    return 0;
}

/* A media type as it may stand in a header: RFC 6838 §4.2 names, no parameters. */
static bool is_media_type(const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789!#$&-^_.+/";
    size_t len = strlen(text);
    return len > 0 && len < 128 && strspn(text, allowed) == len;
}

/* What the manifest will be served as: what it says itself, else what the request says. */
static int media_type_of(struct trk_request *req, char out[128], struct trk_err *err)
{
    const struct trk_buf *body = &v2_state(req)->manifest;
    const char *header = trk_req_header(req, "Content-Type");
    char sent[128] = "";
    if (header != NULL) {
        (void)snprintf(sent, sizeof(sent), "%.*s", (int)strcspn(header, "; \t"), header);
    }
    json_auto_t *json = NULL;
    struct trk_err parse = {0};
    if (trk_json_parse(body->data, body->len, &json, &parse) < 0) {
        return v2_fail(req, TRK_INVALID, "MANIFEST_INVALID", err, "%s", parse.text);
    }
    const char *own = trk_json_string_or(json, "mediaType", "");
    if (own[0] != '\0' && sent[0] != '\0' && strcmp(own, sent) != 0) {
        return v2_fail(req, TRK_INVALID, "MANIFEST_INVALID", err,
                       "Content-Type is %s, but the manifest says %.100s", sent, own);
    }
    const char *type = own[0] != '\0' ? own : sent[0] != '\0' ? sent : TRK_OCI_MANIFEST_TYPE;
    if (!is_media_type(type)) {
        return v2_fail(req, TRK_INVALID, "MANIFEST_INVALID", err, "not a media type: %.100s", type);
    }
    (void)snprintf(out, 128, "%s", type);
    return 0;
}

int v2_put_manifest(struct trk_request *req, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    const struct v2_state *state = v2_state(req);
    const struct v2_target *target = &state->target;
    const struct trk_buf *body = &state->manifest;
    char type[128];
    char digest[TRK_DIGEST_SIZE];
    int rc = check_reference(req, err);
    if (rc == 0) {
        rc = media_type_of(req, type, err);
    }
    if (rc < 0) {
        return rc;
    }
    bool is_digest = trk_digest_is_valid(target->reference);
    trk_digest(body->data, body->len, digest);
    if (is_digest && strcmp(digest, target->reference) != 0) {
        return v2_fail(req, TRK_INVALID, "DIGEST_INVALID", err, "the manifest has the digest %s",
                       digest);
    }
    struct trk_err why = {0};
    rc = store_manifest_put(ib->store, target->repository, is_digest ? NULL : target->reference,
                            type, body->data, body->len, digest, &why);
    if (rc == TRK_NOT_FOUND) {
        return v2_fail(req, TRK_NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", err, "%s", why.text);
    }
    if (rc == TRK_INVALID || rc == TRK_TOO_LARGE) {
        return v2_fail(req, TRK_INVALID, "MANIFEST_INVALID", err, "%s", why.text);
    }
    if (rc < 0) {
        return trk_err_set(err, why.code, "%s", why.text);
    }
    trk_metric_inc(ib->m.images_pushed);
    char rest[256];
    (void)snprintf(rest, sizeof(rest), "manifests/%s", digest);
    v2_location(req, target->repository, rest);
    (void)trk_reply_header(req, "Docker-Content-Digest", digest);
    return trk_reply_empty(req, 201);
}

int v2_delete_manifest(struct trk_request *req, struct trk_err *err)
{
    const struct image_builder *ib = trk_req_ctx(req);
    const struct v2_target *target = &v2_state(req)->target;
    int rc = check_reference(req, err);
    if (rc < 0) {
        return rc;
    }
    rc = store_manifest_delete(ib->store, target->repository, target->reference, err);
    if (rc == TRK_NOT_FOUND) {
        return v2_fail(req, TRK_NOT_FOUND, "MANIFEST_UNKNOWN", err, "%s has no manifest %s",
                       target->repository, target->reference);
    }
    return rc < 0 ? rc : trk_reply_empty(req, 202);
}
