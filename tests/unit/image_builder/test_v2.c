/* The registry as a client sees it: distribution-spec 1.1. */
#include <fcntl.h>
#include <sys/stat.h>

#include "image_builder/api/v2.h"
#include "libtrack/config/profile.h"
#include "libtrack/oci/oci.h"
#include "tests/unit/image_builder/service_helper.h"

#define HELLO   "hello, registry"
#define UNKNOWN "sha256:0000000000000000000000000000000000000000000000000000000000000000"
#define assert_code(code)                                                                          \
    ck_assert_msg(strstr(answer.body, "\"code\":\"" code "\"") != NULL, "%s", answer.body)

static char hello_digest[TRK_DIGEST_SIZE];

static void setup(void)
{
    service_up();
    trk_digest(HELLO, strlen(HELLO), hello_digest);
}

static char *with_digest(const char *location, const char *digest)
{
    return trk_xasprintf("%s%cdigest=%s", location, strchr(location, '?') != NULL ? '&' : '?',
                         digest);
}

static void push_hello(const char *repository)
{
    trk_autofree char *path = trk_xasprintf("/v2/%s/blobs/uploads/?digest=%s", repository,
                                            hello_digest);
    ck_assert_int_eq(request("POST", path, HELLO), 201);
}

START_TEST(who_may_come_in)
{
    trk_autofree char *user = make_token(TRK_SUBJECT_USER, TRK_DEV_AUTH_KEY);
    trk_autofree char *job = make_token(TRK_SUBJECT_JOB_FAMILY, TRK_DEV_AUTH_KEY);
    trk_autofree char *forged = make_token(TRK_SUBJECT_INTERNAL,
                                           "another-key-of-more-than-32-bytes!!");
    trk_autofree char *symmetric = NULL; /* a right one for lifecycle */
    ck_assert_int_eq(trk_profile_internal_token("dev", NULL, "image-builder", &symmetric, &err), 0);
    static const char *const paths[] = {"/v2/", "/v2/_catalog", "/v2/a/blobs/" UNKNOWN};
    for (size_t i = 0; i < TRK_COUNT(paths); i++) {
        ck_assert_int_eq(send_with("GET", paths[i], NULL, NULL, NULL, 0), 401);
        ck_assert_str_eq(header("www-authenticate"), "Basic realm=\"racetrack\"");
        assert_code("UNAUTHORIZED");
        ck_assert_int_eq(send_with("GET", paths[i], NULL, forged, NULL, 0), 401);
        ck_assert_int_eq(send_with("GET", paths[i], NULL, symmetric, NULL, 0), 401);
        ck_assert_int_eq(send_with("GET", paths[i], NULL, user, NULL, 0), 403);
        assert_code("DENIED");
        ck_assert_int_eq(send_with("GET", paths[i], NULL, job, NULL, 0), 403);
    }
    ck_assert_int_eq(send_with("POST", "/api/v1/build", NULL, NULL, "{}", 2), 401);
    ck_assert_int_eq(send_with("POST", "/api/v1/build/sse", NULL, user, "{}", 2), 403);
    struct trk_buf basic, bearer;
    trk_buf_init(&basic, 8192);
    trk_buf_init(&bearer, 8192);
    trk_autofree char *pair = trk_xasprintf("anyone:%s", token);
    trk_buf_adds(&basic, "Authorization: Basic ");
    trk_base64_encode(&basic, pair, strlen(pair));
    trk_buf_addf(&bearer, "Authorization: Bearer %s", token);
    const char *const by_basic[] = {basic.data, NULL}, *const by_bearer[] = {bearer.data, NULL},
                      *const broken[] = {"Authorization: Basic !!!", NULL};
    ck_assert_int_eq(send_with("GET", "/v2/", by_basic, NULL, NULL, 0), 200);
    ck_assert_str_eq(header("docker-distribution-api-version"), "registry/2.0");
    ck_assert_int_eq(send_with("GET", "/v2/", by_bearer, NULL, NULL, 0), 200);
    ck_assert_int_eq(send_with("GET", "/v2/", broken, NULL, NULL, 0), 401);
    trk_buf_fini(&basic);
    trk_buf_fini(&bearer);
}
END_TEST

START_TEST(paths_are_read)
{
    static const struct {
        const char *path;
        enum v2_kind kind; /* V2_NOTHING: refused */
        const char *repository, *reference;
    } table[] = {
        {"_catalog", V2_CATALOG, "", ""},
        {"a/tags/list", V2_TAGS, "a", ""},
        {"a/b/c/manifests/latest", V2_MANIFEST, "a/b/c", "latest"},
        {"a/blobs/sha256:x", V2_BLOB, "a", "sha256:x"},
        {"a/blobs/uploads/", V2_UPLOADS, "a", ""},
        {"a/blobs/uploads", V2_UPLOADS, "a", ""},
        {"a/blobs/uploads/id", V2_UPLOAD, "a", "id"},
        {"blobs/manifests/manifests/blobs", V2_MANIFEST, "blobs/manifests", "blobs"},
        {"a/manifests/b/blobs/d", V2_BLOB, "a/manifests/b", "d"},
        {"a/referrers/sha256:x", V2_REFERRERS, "a", "sha256:x"},
        {"", V2_NOTHING, NULL, NULL},
        {"a", V2_NOTHING, NULL, NULL},
        {"a/manifests/", V2_NOTHING, NULL, NULL},
        {"A/manifests/x", V2_NOTHING, NULL, NULL},
        {"a/_x/manifests/x", V2_NOTHING, NULL, NULL},
        {"manifests/x", V2_NOTHING, NULL, NULL},
        {"../a/manifests/x", V2_NOTHING, NULL, NULL},
        {"a//manifests/x", V2_NOTHING, NULL, NULL},
        {"a/manifests/x/", V2_NOTHING, NULL, NULL},
    };
    for (size_t i = 0; i < TRK_COUNT(table); i++) {
        struct v2_target target = {0};
        bool is_good = v2_target_parse(table[i].path, &target);
        ck_assert_msg(is_good == (table[i].kind != V2_NOTHING), "'%s'", table[i].path);
        if (is_good) {
            ck_assert_msg(target.kind == table[i].kind, "'%s'", table[i].path);
            ck_assert_str_eq(target.repository, table[i].repository);
            ck_assert_str_eq(target.reference, table[i].reference);
        }
    }
}
END_TEST

START_TEST(blob_in_one_request_and_its_ranges)
{
    static const struct {
        const char *range;
        int status;
        const char *body;
    } table[] = {
        {NULL, 200, HELLO},
        {"bytes=0-4", 206, "hello"},
        {"bytes=7-", 206, "registry"},
        {"bytes=-3", 206, "try"},
        {"bytes=-99", 206, HELLO},
        {"bytes=7-999", 206, "registry"},
        {"bytes=5-2", 200, HELLO},
        {"bytes=a-b", 200, HELLO},
        {"lines=0-1", 200, HELLO},
        {"bytes=0-1,3-4", 200, HELLO},
        {"bytes=99-", 416, NULL},
        {"bytes=-0", 416, NULL},
        {"bytes=99999999999999999999-", 200, HELLO},
    };
    push_hello("a/b");
    ck_assert_str_eq(header("docker-content-digest"), hello_digest);
    trk_autofree char *path = trk_xasprintf("/v2/a/b/blobs/%s", hello_digest);
    ck_assert_int_eq(request("HEAD", path, NULL), 200);
    ck_assert_str_eq(header("content-length"), "15");
    for (size_t i = 0; i < TRK_COUNT(table); i++) {
        trk_autofree char *range = trk_xasprintf("Range: %s", table[i].range);
        const char *const headers[] = {range, NULL};
        int status = send_with("GET", path, table[i].range != NULL ? headers : NULL, token, NULL,
                               0);
        ck_assert_msg(status == table[i].status, "%s: %d", table[i].range, status);
        if (table[i].body != NULL) {
            ck_assert_str_eq(answer.body, table[i].body);
        }
    }
    ck_assert_int_eq(request("GET", "/v2/a/b/blobs/" UNKNOWN, NULL), 404);
    assert_code("BLOB_UNKNOWN");
    ck_assert_int_eq(request("GET", "/v2/a/b/blobs/sha256:short", NULL), 400);
    assert_code("DIGEST_INVALID");
    ck_assert_int_eq(request("GET", "/v2/a/b/blobs/..%2F..%2Fetc", NULL), 400);
}
END_TEST

START_TEST(blob_in_pieces)
{
    ck_assert_int_eq(request("POST", "/v2/a/blobs/uploads/", NULL), 202);
    trk_autofree char *location = trk_xstrdup(header("location"));
    ck_assert(trk_str_has_prefix(location, "/v2/a/blobs/uploads/"));
    static const char *const first[] = {"Content-Range: 0-4", NULL};
    static const char *const wrong[] = {"Content-Range: 9-14", NULL};
    static const char *const second[] = {"Content-Range: 5-14", NULL};
    ck_assert_int_eq(send_with("PATCH", location, first, token, "hello", 5), 202);
    ck_assert_str_eq(header("range"), "0-4");
    ck_assert_int_eq(send_with("PATCH", location, wrong, token, "gistry", 6), 416);
    ck_assert_int_eq(request("GET", location, NULL), 204);
    ck_assert_str_eq(header("range"), "0-4");
    ck_assert_int_eq(send_with("PATCH", location, second, token, ", registry", 10), 202);
    trk_autofree char *end = with_digest(location, hello_digest);
    ck_assert_int_eq(request("PUT", end, NULL), 201);
    trk_autofree char *blob = trk_xasprintf("/v2/a/blobs/%s", hello_digest);
    ck_assert_int_eq(request("GET", blob, NULL), 200);
    ck_assert_str_eq(answer.body, HELLO);
    ck_assert_int_eq(request("PUT", end, NULL), 404);
    assert_code("BLOB_UPLOAD_UNKNOWN");
}
END_TEST

/* An upload is free again when the answer has come, not some time later. */
START_TEST(pieces_follow_each_other_at_once)
{
    struct trk_http_client *clients[2] = {trk_http_client_new(), client};
    ck_assert_int_eq(request("POST", "/v2/a/blobs/uploads/", NULL), 202);
    trk_autofree char *location = trk_xstrdup(header("location"));
    for (unsigned i = 0; i < 400; i++) {
        client = clients[i % 2];
        ck_assert_msg(request("PATCH", location, "x") == 202, "piece %u: %s", i, answer.body);
    }
    ck_assert_str_eq(header("range"), "0-399");
    trk_http_client_free(clients[0]);
    client = clients[1];
}
END_TEST

START_TEST(last_piece_comes_with_the_put)
{
    ck_assert_int_eq(request("POST", "/v2/a/blobs/uploads/", NULL), 202);
    trk_autofree char *location = trk_xstrdup(header("location"));
    ck_assert_int_eq(request("PATCH", location, "hello"), 202);
    trk_autofree char *end = with_digest(location, hello_digest);
    ck_assert_int_eq(request("PUT", end, ", registry"), 201);
}
END_TEST

START_TEST(wrong_digests_store_nothing)
{
    ck_assert_int_eq(request("POST", "/v2/a/blobs/uploads/?digest=" UNKNOWN, HELLO), 400);
    assert_code("DIGEST_INVALID");
    ck_assert_int_eq(request("POST", "/v2/a/blobs/uploads/?digest=md5:1", HELLO), 400);
    ck_assert_int_eq(request("POST", "/v2/a/blobs/uploads/", NULL), 202);
    trk_autofree char *location = trk_xstrdup(header("location"));
    ck_assert_int_eq(request("PUT", location, HELLO), 400); /* without a digest */
    trk_autofree char *end = with_digest(location, UNKNOWN);
    ck_assert_int_eq(request("PUT", end, HELLO), 400);
    assert_code("DIGEST_INVALID");
    ck_assert_int_eq(request("GET", "/v2/a/blobs/" UNKNOWN, NULL), 404);
    trk_autofree char *blob = trk_xasprintf("/v2/a/blobs/%s", hello_digest);
    ck_assert_int_eq(request("GET", blob, NULL), 404);
}
END_TEST

START_TEST(mount_cancel_and_strangers)
{
    push_hello("a");
    trk_autofree char *mount = trk_xasprintf("/v2/b/blobs/uploads/?mount=%s&from=a", hello_digest);
    ck_assert_int_eq(request("POST", mount, NULL), 201);
    ck_assert_int_eq(request("POST", "/v2/b/blobs/uploads/?mount=" UNKNOWN "&from=a", NULL), 202);
    trk_autofree char *location = trk_xstrdup(header("location"));
    trk_autofree char *other = trk_xasprintf("/v2/c/blobs/uploads/%s", strrchr(location, '/') + 1);
    ck_assert_int_eq(request("PATCH", other, "x"), 404); /* another repository's upload */
    ck_assert_int_eq(request("DELETE", location, NULL), 204);
    ck_assert_int_eq(request("PATCH", location, "x"), 404);
    assert_code("BLOB_UPLOAD_UNKNOWN");
    ck_assert_int_eq(request("PATCH", "/v2/a/blobs/uploads/nothing", "x"), 404);
    ck_assert_int_eq(request("POST", "/v2/UPPER/blobs/uploads/", NULL), 404);
    ck_assert_int_eq(request("PUT", "/v2/a/tags/list", "x"), 405);
    assert_code("UNSUPPORTED");
    ck_assert_int_eq(request("GET", "/v2/a/referrers/" UNKNOWN, NULL), 404);
}
END_TEST

/* Config is HELLO's blob: any will do. */
static char *manifest_of_hello(const char *extra)
{
    return trk_xasprintf("{\"schemaVersion\":2,\"mediaType\":\"" TRK_OCI_MANIFEST_TYPE
                         "\",\"config\":{\"mediaType\":\"" TRK_OCI_CONFIG_TYPE
                         "\",\"digest\":\"%s\",\"size\":%zu},\"layers\":[]%s}",
                         hello_digest, strlen(HELLO), extra);
}

static int put_manifest(const char *path, const char *type, const char *text)
{
    trk_autofree char *header_line = trk_xasprintf("Content-Type: %s", type);
    const char *const headers[] = {header_line, NULL};
    return send_with("PUT", path, headers, token, text, strlen(text));
}

START_TEST(manifests)
{
    trk_autofree char *text = manifest_of_hello("");
    char digest[TRK_DIGEST_SIZE];
    trk_digest(text, strlen(text), digest);
    ck_assert_int_eq(put_manifest("/v2/a/manifests/v1", TRK_OCI_MANIFEST_TYPE, text), 404);
    assert_code("MANIFEST_BLOB_UNKNOWN");
    push_hello("a");
    ck_assert_int_eq(put_manifest("/v2/a/manifests/v1", TRK_OCI_MANIFEST_TYPE, text), 201);
    ck_assert_str_eq(header("docker-content-digest"), digest);
    ck_assert_int_eq(request("GET", "/v2/a/manifests/v1", NULL), 200);
    ck_assert_str_eq(answer.body, text);
    ck_assert_str_eq(answer.content_type, TRK_OCI_MANIFEST_TYPE);
    trk_autofree char *by_digest = trk_xasprintf("/v2/a/manifests/%s", digest);
    ck_assert_int_eq(request("HEAD", by_digest, NULL), 200);
    ck_assert_str_eq(header("docker-content-digest"), digest);
    /* refused */
    ck_assert_int_eq(put_manifest("/v2/a/manifests/v2", "application/x", text), 400);
    assert_code("MANIFEST_INVALID");
    ck_assert_int_eq(put_manifest("/v2/a/manifests/v2", TRK_OCI_MANIFEST_TYPE, "{}"), 400);
    ck_assert_int_eq(put_manifest("/v2/a/manifests/v2", TRK_OCI_MANIFEST_TYPE, "not json"), 400);
    ck_assert_int_eq(put_manifest("/v2/a/manifests/" UNKNOWN, TRK_OCI_MANIFEST_TYPE, text), 400);
    assert_code("DIGEST_INVALID");
    ck_assert_int_eq(put_manifest("/v2/a/manifests/-bad", TRK_OCI_MANIFEST_TYPE, text), 400);
    trk_autofree char *inject = trk_xstrdup(text);
    char *type = strstr(inject, "application");
    type[3] = '\\';
    type[4] = 'n';
    ck_assert_int_eq(put_manifest("/v2/a/manifests/v2", "", inject), 400);
    trk_autofree char *big = trk_xmalloc((5U << 20) + 1);
    memset(big, ' ', 5U << 20);
    big[5U << 20] = '\0';
    ck_assert_int_eq(put_manifest("/v2/a/manifests/v2", TRK_OCI_MANIFEST_TYPE, big), 413);
    /* lists */
    ck_assert_int_eq(put_manifest("/v2/a/manifests/v2", TRK_OCI_MANIFEST_TYPE, text), 201);
    ck_assert_int_eq(put_manifest("/v2/b/manifests/x", TRK_OCI_MANIFEST_TYPE, text), 201);
    ck_assert_int_eq(request("GET", "/v2/a/tags/list", NULL), 200);
    ck_assert_str_eq(answer.body, "{\"name\":\"a\",\"tags\":[\"v1\",\"v2\"]}");
    ck_assert_int_eq(request("GET", "/v2/a/tags/list?n=1", NULL), 200);
    ck_assert_str_eq(answer.body, "{\"name\":\"a\",\"tags\":[\"v1\"]}");
    ck_assert_str_eq(header("link"), "</v2/a/tags/list?last=v1&n=1>; rel=\"next\"");
    ck_assert_int_eq(request("GET", "/v2/a/tags/list?n=1&last=v1", NULL), 200);
    ck_assert_str_eq(answer.body, "{\"name\":\"a\",\"tags\":[\"v2\"]}");
    ck_assert_str_eq(header("link"), "");
    ck_assert_int_eq(request("GET", "/v2/_catalog", NULL), 200);
    ck_assert_str_eq(answer.body, "{\"repositories\":[\"a\",\"b\"]}");
    ck_assert_int_eq(request("GET", "/v2/zzz/tags/list", NULL), 404);
    assert_code("NAME_UNKNOWN");
    /* deleting */
    trk_autofree char *blob = trk_xasprintf("/v2/a/blobs/%s", hello_digest);
    ck_assert_int_eq(request("DELETE", blob, NULL), 409);
    assert_code("DENIED");
    ck_assert_int_eq(request("DELETE", "/v2/a/manifests/v1", NULL), 202);
    ck_assert_int_eq(request("GET", "/v2/a/manifests/v1", NULL), 404);
    assert_code("MANIFEST_UNKNOWN");
    ck_assert_int_eq(request("GET", "/v2/a/manifests/v2", NULL), 200);
    ck_assert_int_eq(request("DELETE", by_digest, NULL), 202);
    ck_assert_int_eq(request("GET", "/v2/a/manifests/v2", NULL), 404);
    ck_assert_int_eq(request("GET", "/v2/b/manifests/x", NULL), 200);
    ck_assert_int_eq(request("DELETE", "/v2/b/manifests/x", NULL), 202);
}
END_TEST

/* libtrack's client against this server, and against bytes that are not what they should be. */
START_TEST(client_verifies_what_it_gets)
{
    trk_autofree char *text = manifest_of_hello("");
    trk_autofree char *base = trk_xasprintf("%s/v2/", base_url);
    char digest[TRK_DIGEST_SIZE];
    char *bytes;
    size_t len;
    push_hello("a");
    ck_assert_int_eq(put_manifest("/v2/a/manifests/v1", TRK_OCI_MANIFEST_TYPE, text), 201);
    ck_assert_msg(
        trk_registry_manifest(client, base, token, "a", "v1", &bytes, &len, digest, &err) == 0,
        "%s", err.text);
    ck_assert_str_eq(bytes, text);
    free(bytes);
    ck_assert_int_eq(
        trk_registry_manifest(client, base_url, token, "a", digest, &bytes, &len, digest, &err), 0);
    free(bytes);
    ck_assert_int_eq(
        trk_registry_manifest(client, base_url, token, "a", "v9", &bytes, &len, digest, &err),
        TRK_NOT_FOUND);
    ck_assert_int_eq(
        trk_registry_manifest(client, base_url, "bad", "a", "v1", &bytes, &len, digest, &err),
        TRK_UNAUTHENTICATED);
    ck_assert_int_eq(
        trk_registry_manifest(client, base_url, token, "../a", "v1", &bytes, &len, digest, &err),
        TRK_INVALID);
    trk_autofree char *path = trk_xasprintf("%s/fetched", state);
    trk_autoclose int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_eq(trk_write_all(fd, "older and longer content", 24, &err), 0);
    ck_assert_msg(trk_registry_blob(client, base_url, token, "a", hello_digest, fd, &err) == 0,
                  "%s", err.text);
    trk_autofree char *got = NULL;
    ck_assert_int_eq(trk_file_read(path, 100, &got, &len, &err), 0);
    ck_assert_str_eq(got, HELLO);
    ck_assert_int_eq(trk_registry_blob(client, base_url, token, "a", UNKNOWN, fd, &err),
                     TRK_NOT_FOUND);
    struct stat st;
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_eq(st.st_size, 0);
}
END_TEST

static int serve_lies(struct trk_request *req, struct trk_err *e)
{
    (void)e;
    return trk_reply_text(req, 200, "application/octet-stream", "not what you asked for");
}

START_TEST(client_refuses_other_bytes)
{
    static const struct trk_route routes[] = {{.method = "GET",
                                               .path = "/v2/{rest:path}",
                                               .access = "public",
                                               .handler = serve_lies,
                                               .help = "lies"}};
    static const struct trk_route_table table = {"lies", routes, 1};
    struct trk_http_options options = {.service = "liar",
                                       .title = "liar",
                                       .version = "1",
                                       .addr = "127.0.0.1",
                                       .tables = &table,
                                       .table_count = 1};
    struct trk_http_server *liar;
    ck_assert_int_eq(trk_http_server_start(&options, &liar, &err), 0);
    trk_autofree char *url = trk_xasprintf("127.0.0.1:%d", trk_http_server_port(liar));
    char digest[TRK_DIGEST_SIZE];
    char *bytes = NULL;
    size_t len;
    ck_assert_int_eq(
        trk_registry_manifest(client, url, token, "a", hello_digest, &bytes, &len, digest, &err),
        TRK_BAD_GATEWAY);
    trk_autofree char *path = trk_xasprintf("%s/fetched", state);
    trk_autoclose int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_eq(trk_registry_blob(client, url, token, "a", hello_digest, fd, &err),
                     TRK_BAD_GATEWAY);
    struct stat st;
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_eq(st.st_size, 0);
    trk_http_client_free(client); /* its kept connection would hold the server up */
    client = trk_http_client_new();
    trk_http_server_stop(liar, 1000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("registry");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, service_down);
    tcase_add_test(tc, who_may_come_in);
    tcase_add_test(tc, paths_are_read);
    tcase_add_test(tc, blob_in_one_request_and_its_ranges);
    tcase_add_test(tc, blob_in_pieces);
    tcase_add_test(tc, pieces_follow_each_other_at_once);
    tcase_add_test(tc, last_piece_comes_with_the_put);
    tcase_add_test(tc, wrong_digests_store_nothing);
    tcase_add_test(tc, mount_cancel_and_strangers);
    tcase_add_test(tc, manifests);
    tcase_add_test(tc, client_verifies_what_it_gets);
    tcase_add_test(tc, client_refuses_other_bytes);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
