#include <check.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/oci/oci.h"

#define D0 "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define D1 "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

static struct trk_err err;

static void make(const char *const *env, char **config, char **manifest)
{
    static const char *const entrypoint[] = {"job_wrapper", "run", "adder.py", "Adder", NULL};
    const struct trk_oci_descriptor layers[] = {
        {TRK_OCI_LAYER_TYPE, D0, 10, D1, "dependencies"},
        {TRK_OCI_LAYER_TYPE, D1, 20, D0, "code"},
    };
    json_auto_t *labels = json_pack("{s:s, s:s}", "job-version", "1.0.0", "job-name", "adder");
    struct trk_oci_image_spec spec = {.layers = layers,
                                      .layer_count = 2,
                                      .env = env,
                                      .entrypoint = entrypoint,
                                      .working_dir = "/src/job",
                                      .exposed_port = "7000/tcp",
                                      .labels = labels};
    ck_assert_msg(trk_oci_image_make(&spec, config, manifest, &err) == 0, "%s", err.text);
}

START_TEST(made_image_is_deterministic_and_reads_back)
{
    static const char *const env[] = {"A=1", "B=2", NULL};
    char *config, *manifest, *config2, *manifest2;
    make(env, &config, &manifest);
    make(env, &config2, &manifest2);
    ck_assert_str_eq(config, config2);
    ck_assert_str_eq(manifest, manifest2);
    struct trk_oci_image image;
    ck_assert_msg(trk_oci_manifest_parse(manifest, strlen(manifest), &image, &err) == 0, "%s",
                  err.text);
    char digest[TRK_DIGEST_SIZE];
    trk_digest(config, strlen(config), digest);
    ck_assert_str_eq(image.config.digest, digest);
    ck_assert_str_eq(image.config.media_type, TRK_OCI_CONFIG_TYPE);
    ck_assert_int_eq(image.config.size_bytes, (int64_t)strlen(config));
    ck_assert_uint_eq(image.layer_count, 2);
    ck_assert_str_eq(image.layers[0].role, "dependencies");
    ck_assert_str_eq(image.layers[0].digest, D0);
    ck_assert_str_eq(image.layers[1].role, "code");
    ck_assert_int_eq(image.layers[1].size_bytes, 20);
    json_auto_t *json = NULL;
    ck_assert_int_eq(trk_json_parse(config, strlen(config), &json, &err), 0);
    const json_t *run = json_object_get(json, "config");
    ck_assert_str_eq(trk_json_string_or(run, "WorkingDir", ""), "/src/job");
    ck_assert_str_eq(json_string_value(json_array_get(json_object_get(run, "Env"), 1)), "B=2");
    ck_assert_uint_eq(json_array_size(json_object_get(run, "Entrypoint")), 4);
    ck_assert_ptr_nonnull(json_object_get(json_object_get(run, "ExposedPorts"), "7000/tcp"));
    ck_assert_str_eq(trk_json_string_or(json_object_get(run, "Labels"), "job-name", ""), "adder");
    const json_t *rootfs = json_object_get(json, "rootfs");
    ck_assert_str_eq(json_string_value(json_array_get(json_object_get(rootfs, "diff_ids"), 0)), D1);
    free(config);
    free(manifest);
    free(config2);
    free(manifest2);
}
END_TEST

START_TEST(settings_that_are_not_text_are_refused)
{
    static const char *const env[] = {"A=\xff", NULL};
    struct trk_oci_image_spec spec = {.env = env};
    char *config = NULL, *manifest = NULL;
    ck_assert_int_eq(trk_oci_image_make(&spec, &config, &manifest, &err), TRK_INVALID);
    ck_assert_ptr_null(config);
}
END_TEST

#define DESC(digest, size) "{\"mediaType\":\"x/y\",\"digest\":\"" digest "\",\"size\":" size "}"

static const struct {
    const char *text;
    const char *says;
} bad[] = {
    {"", ""},
    {"[]", "schemaVersion"},
    {"{}", "schemaVersion"},
    {"{\"schemaVersion\":1,\"layers\":[]}", "schemaVersion"},
    {"{\"schemaVersion\":2}", "either"},
    {"{\"schemaVersion\":2,\"layers\":[],\"manifests\":[]}", "either"},
    {"{\"schemaVersion\":2,\"layers\":[]}", "config"},
    {"{\"schemaVersion\":2,\"manifests\":{}}", "list"},
    {"{\"schemaVersion\":2,\"manifests\":[1]}", "manifests[0] must be an object"},
    {"{\"schemaVersion\":2,\"manifests\":[" DESC(D0, "-1") "]}", "size"},
    {"{\"schemaVersion\":2,\"manifests\":[" DESC(D0, "\"1\"") "]}", "size"},
    {"{\"schemaVersion\":2,\"manifests\":[" DESC("sha256:xyz", "1") "]}", "digest"},
    {"{\"schemaVersion\":2,\"manifests\":[" DESC("../../etc/passwd", "1") "]}", "digest"},
    {"{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"" D0 "\",\"size\":1}]}", "mediaType"},
    {"{\"schemaVersion\":2,\"config\":" DESC(D0, "1") ",\"layers\":[null]}", "layers[0]"},
};

START_TEST(bad_manifest_is_refused)
{
    struct trk_oci_image image = {.layer_count = 77};
    ck_assert_msg(trk_oci_manifest_parse(bad[_i].text, strlen(bad[_i].text), &image, &err) ==
                      TRK_INVALID,
                  "%s", bad[_i].text);
    ck_assert_msg(strstr(err.text, bad[_i].says) != NULL, "%s: %s", bad[_i].text, err.text);
    ck_assert_uint_eq(image.layer_count, 77);
}
END_TEST

START_TEST(too_many_layers_are_refused)
{
    struct trk_buf text;
    trk_buf_init(&text, 1 << 20);
    for (unsigned count = 64; count <= 65; count++) {
        trk_buf_reset(&text);
        trk_buf_adds(&text, "{\"schemaVersion\":2,\"config\":" DESC(D0, "1") ",\"layers\":[");
        for (unsigned i = 0; i < count; i++) {
            trk_buf_addf(&text, "%s%s", i > 0 ? "," : "", DESC(D1, "2"));
        }
        trk_buf_adds(&text, "]}");
        struct trk_oci_image image;
        ck_assert_int_eq(trk_oci_manifest_parse(text.data, text.len, &image, &err),
                         count == 64 ? 0 : TRK_INVALID);
    }
    trk_buf_fini(&text);
}
END_TEST

START_TEST(index_has_manifests_and_no_config)
{
    static const char text[] = "{\"schemaVersion\":2,\"manifests\":[" DESC(D0, "7") "]}";
    struct trk_oci_image image;
    ck_assert_int_eq(trk_oci_manifest_parse(text, strlen(text), &image, &err), 0);
    ck_assert_str_eq(image.config.digest, "");
    ck_assert_uint_eq(image.layer_count, 1);
    ck_assert_int_eq(image.layers[0].size_bytes, 7);
}
END_TEST

static const struct {
    const char *text, *registry, *repository, *reference; /* registry NULL: refused */
} refs[] = {
    {"127.0.0.1:7201/racetrack/job-entrypoint/adder:2026-01-31T120000", "127.0.0.1:7201",
     "racetrack/job-entrypoint/adder", "2026-01-31T120000"},
    {"localhost/a", "localhost", "a", "latest"},
    {"[::1]:5000/a__b/c---d:x", "[::1]:5000", "a__b/c---d", "x"},
    {"r.example/a@" D0, "r.example", "a", D0},
    {"r.example/a:tag@" D0, "r.example", "a", D0},
    {"adder", NULL, NULL, NULL},
    {"adder:1", NULL, NULL, NULL},
    {"library/adder", NULL, NULL, NULL},
    {"r.example/", NULL, NULL, NULL},
    {"r.example/A", NULL, NULL, NULL},
    {"r.example/a//b", NULL, NULL, NULL},
    {"r.example/a/../b", NULL, NULL, NULL},
    {"r.example/a_", NULL, NULL, NULL},
    {"r.example/a___b", NULL, NULL, NULL},
    {"r.example/-a", NULL, NULL, NULL},
    {"r.example/a:", NULL, NULL, NULL},
    {"r.example/a:-x", NULL, NULL, NULL},
    {"r.example/a:x y", NULL, NULL, NULL},
    {"r.example/a@sha256:12", NULL, NULL, NULL},
    {"r.example/a@", NULL, NULL, NULL},
    {"r e/a:x", NULL, NULL, NULL},
    {"user@r.example/a:x", NULL, NULL, NULL},
    {"", NULL, NULL, NULL},
};

START_TEST(reference_is_split)
{
    struct trk_oci_ref ref;
    int rc = trk_oci_ref_parse(refs[_i].text, &ref, &err);
    if (refs[_i].registry == NULL) {
        ck_assert_msg(rc == TRK_INVALID, "'%s'", refs[_i].text);
        return;
    }
    ck_assert_msg(rc == 0, "'%s': %s", refs[_i].text, err.text);
    ck_assert_str_eq(ref.registry, refs[_i].registry);
    ck_assert_str_eq(ref.repository, refs[_i].repository);
    ck_assert_str_eq(ref.reference, refs[_i].reference);
}
END_TEST

START_TEST(lengths_of_names_and_tags)
{
    char text[600];
    memset(text, 'a', sizeof(text));
    text[255] = '\0';
    ck_assert(trk_oci_repository_is_valid(text));
    text[255] = 'a';
    text[256] = '\0';
    ck_assert(!trk_oci_repository_is_valid(text));
    text[128] = '\0';
    ck_assert(trk_oci_tag_is_valid(text));
    text[128] = 'a';
    text[129] = '\0';
    ck_assert(!trk_oci_tag_is_valid(text));
    struct trk_oci_ref ref;
    text[256] = 'a';
    text[129] = 'a';
    text[599] = '\0';
    memcpy(text, "r.example/", 10);
    ck_assert_int_eq(trk_oci_ref_parse(text, &ref, &err), TRK_INVALID);
    text[20] = ':';
    ck_assert_int_eq(trk_oci_ref_parse(text, &ref, &err), TRK_INVALID);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("oci_image");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, made_image_is_deterministic_and_reads_back);
    tcase_add_test(tc, settings_that_are_not_text_are_refused);
    tcase_add_loop_test(tc, bad_manifest_is_refused, 0, TRK_COUNT(bad));
    tcase_add_test(tc, too_many_layers_are_refused);
    tcase_add_test(tc, index_has_manifests_and_no_config);
    tcase_add_loop_test(tc, reference_is_split, 0, TRK_COUNT(refs));
    tcase_add_test(tc, lengths_of_names_and_tags);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
