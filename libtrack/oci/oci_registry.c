/* Registry client: distribution-spec 1.1, "Pull". Nothing is given out whose digest was not checked
 * here. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/oci/oci.h"

#define MANIFEST_MAX (4 << 20)
#define BLOB_MAX     ((size_t)64 << 30)
#define IDLE_MS      30000

static bool is_loopback(const char *host)
{
    return trk_str_has_prefix(host, "127.") || trk_str_has_prefix(host, "localhost:") ||
           strcmp(host, "localhost") == 0 || trk_str_has_prefix(host, "[::1]");
}

/* "http://host:port" of a base URL that may lack the scheme and may end in "/" or "/v2". */
static char *registry_root(const char *base_url)
{
    size_t len = strlen(base_url);
    while (len > 0 && base_url[len - 1] == '/') {
        len--;
    }
    if (len > 3 && memcmp(base_url + len - 3, "/v2", 3) == 0) {
        len -= 3;
    }
    const char *scheme = "";
    if (!trk_str_has_prefix(base_url, "http://") && !trk_str_has_prefix(base_url, "https://")) {
        scheme = is_loopback(base_url) ? "http://" : "https://";
    }
    return trk_xasprintf("%s%.*s", scheme, (int)len, base_url);
}

static int check_names(const char *repository, const char *reference, struct trk_err *err)
{
    if (!trk_oci_repository_is_valid(repository)) {
        return trk_err_set(err, TRK_INVALID, "not a repository name: %.300s", repository);
    }
    if (!trk_digest_is_valid(reference) && !trk_oci_tag_is_valid(reference)) {
        return trk_err_set(err, TRK_INVALID, "not a tag or digest: %.200s", reference);
    }
    return 0;
}

int trk_registry_manifest(struct trk_http_client *client, const char *base_url, const char *token,
                          const char *repository, const char *reference, char **ret_bytes,
                          size_t *ret_len, char ret_digest[TRK_DIGEST_SIZE], struct trk_err *err)
{
    static const char *const accept[] = {"Accept: " TRK_OCI_MANIFEST_TYPE
                                         ", application/vnd.oci.image.index.v1+json, "
                                         "application/vnd.docker.distribution.manifest.v2+json",
                                         NULL};
    int rc = check_names(repository, reference, err);
    if (rc < 0) {
        return rc;
    }
    trk_autofree char *root = registry_root(base_url);
    trk_autofree char *url = trk_xasprintf("%s/v2/%s/manifests/%s", root, repository, reference);
    struct trk_http_call call = {.url = url,
                                 .headers = accept,
                                 .auth_token = token,
                                 .answer_max_bytes = MANIFEST_MAX,
                                 .timeout_ms = IDLE_MS};
    struct trk_http_answer answer;
    if (trk_http_call(client, &call, &answer, err) < 0) {
        return trk_err_wrap(err, "asking the image store for %s:%s", repository, reference);
    }
    char digest[TRK_DIGEST_SIZE];
    char said[TRK_DIGEST_SIZE] = "";
    trk_digest(answer.body, answer.body_len, digest);
    (void)trk_http_answer_header(&answer, "docker-content-digest", said, sizeof(said));
    if (answer.status != 200) {
        (void)trk_http_answer_err(&answer, err);
        rc = trk_err_wrap(err, "image %s:%s", repository, reference);
    } else if ((trk_digest_is_valid(reference) && strcmp(reference, digest) != 0) ||
               (trk_digest_is_valid(said) && strcmp(said, digest) != 0)) {
        rc = trk_err_set(err, TRK_BAD_GATEWAY,
                         "the image store answered another manifest than %s:%s: it has the digest "
                         "%s",
                         repository, reference, digest);
    } else {
        *ret_bytes = TRK_STEAL(answer.body);
        *ret_len = answer.body_len;
        memcpy(ret_digest, digest, sizeof(digest));
    }
    trk_http_answer_fini(&answer);
    return rc;
}

struct blob_sink {
    int fd;
    struct trk_sha256_ctx *sha;
    struct trk_buf problem; /* body of an answer that is no blob */
};

static int on_blob_data(void *ctx, int status, const char *bytes, size_t len, struct trk_err *err)
{
    struct blob_sink *sink = ctx;
    if (status != 200) {
        (void)trk_buf_add(&sink->problem, bytes, len);
        return 0;
    }
    trk_sha256_update(sink->sha, bytes, len);
    return trk_write_all(sink->fd, bytes, len, err);
}

static int fetch_blob(struct trk_http_client *client, const char *url, const char *token,
                      const char *digest, struct blob_sink *sink, struct trk_err *err)
{
    struct trk_http_call call = {.url = url,
                                 .auth_token = token,
                                 .answer_max_bytes = BLOB_MAX,
                                 .timeout_ms = -1,
                                 .idle_timeout_ms = IDLE_MS,
                                 .on_data = on_blob_data,
                                 .ctx = sink};
    struct trk_http_answer answer;
    int rc = trk_http_call(client, &call, &answer, err);
    if (rc < 0) {
        return rc;
    }
    unsigned char sum[TRK_SHA256_SIZE];
    char got[TRK_DIGEST_SIZE] = "sha256:";
    trk_sha256_final(sink->sha, sum);
    trk_hex(sum, sizeof(sum), got + 7);
    if (answer.status != 200) {
        free(answer.body);
        answer.body = trk_buf_steal(&sink->problem, &answer.body_len);
        rc = trk_http_answer_err(&answer, err);
    } else if (strcmp(got, digest) != 0) {
        rc = trk_err_set(err, TRK_BAD_GATEWAY, "the bytes received have the digest %s", got);
    }
    trk_http_answer_fini(&answer);
    return rc;
}

int trk_registry_blob(struct trk_http_client *client, const char *base_url, const char *token,
                      const char *repository, const char *digest, int out_fd, struct trk_err *err)
{
    int rc = check_names(repository, digest, err);
    if (rc < 0) {
        return rc;
    }
    if (ftruncate(out_fd, 0) < 0 || lseek(out_fd, 0, SEEK_SET) < 0) {
        return trk_err_errno(err, errno, "emptying the file for a blob");
    }
    trk_autofree char *root = registry_root(base_url);
    trk_autofree char *url = trk_xasprintf("%s/v2/%s/blobs/%s", root, repository, digest);
    struct blob_sink sink = {.fd = out_fd, .sha = trk_sha256_new()};
    trk_buf_init(&sink.problem, 65536);
    rc = fetch_blob(client, url, token, digest, &sink, err);
    trk_sha256_free(sink.sha);
    trk_buf_fini(&sink.problem);
    if (rc < 0) {
        (void)!ftruncate(out_fd, 0); /* nothing unchecked is left behind */
        return trk_err_wrap(err, "layer %s of %s", digest, repository);
    }
    return 0;
}
