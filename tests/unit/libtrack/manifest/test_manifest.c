#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/data/json.h"
#include "libtrack/data/yaml.h"
#include "libtrack/manifest/manifest.h"

#define HEAD "name: adder\nowner_email: jane@example.com\ngit: {remote: https://example.com/x}\n"
#define PYTHON                                                                                     \
    HEAD "jobtype: python3:latest\njobtype_extra:\n  entrypoint_path: adder.py\n" /* 6 lines */

static const char full[] =
    "name: adder\n"
    "owner_email: jane@example.com\n"
    "git:\n"
    "  remote: https://github.com/TheRacetrack/racetrack\n"
    "  branch: master\n"
    "  directory: sample/python-class\n"
    "version: \"1.2.3-rc.1\"\n"
    "jobtype: python3:2.15.0\n"
    "extends: null\n"
    "image_type: docker\n"
    "system_dependencies: [libgomp1, \"g++\"]\n"
    "build_env: {PIP_NO_CACHE: \"1\"}\n"
    "runtime_env: {DEBUG: \"yes\"}\n"
    "secret_build_env_file: build.env\n"
    "secret_runtime_env_file: run.env\n"
    "labels: {team: a, list: [1, 2], empty: null}\n"
    "public_endpoints: [/api/v1/perform]\n"
    "replicas: 2\n"
    "resources: {memory_min: 256Mi, memory_max: 1Gi, cpu_min: 10m, cpu_max: 1.5}\n"
    "infrastructure_target: docker\n"
    "jobtype_extra:\n"
    "  requirements_path: requirements.txt\n"
    "  entrypoint_path: adder.py\n"
    "  entrypoint_class: AdderModel\n"
    "  python_version: \"3.11\"\n"
    "  debian_version: bookworm\n"
    "  debian_backports: true\n"
    "  check_requirements: true\n"
    "  memray_profiler: false\n"
    "  max_concurrency: 1\n"
    "  max_concurrency_queue: 5\n"
    "  home_page: /webview\n"
    "  request_timeout_s: 60\n";

static const char fatman[] =
    "name: adder\n"
    "owner_email: sample@example.com\n"
    "lang: python3\n"
    "git: {remote: https://github.com/TheRacetrack/racetrack, directory: sample/python-class}\n"
    "python:\n"
    "  requirements_path: 'requirements.txt'\n"
    "  entrypoint_path: 'adder.py'\n"
    "  entrypoint_class: 'AdderModel'\n"
    "wrapper_properties: {max_concurrency: 3}\n";

static json_t *parse(const char *yaml)
{
    json_t *manifest = NULL;
    struct trk_err err = {0};
    ck_assert_msg(trk_manifest_parse(yaml, strlen(yaml), "job.yaml", &manifest, &err) == 0, "%s",
                  err.text);
    return manifest;
}

START_TEST(both_eras_are_accepted)
{
    json_auto_t *now = parse(full);
    json_auto_t *then = parse(fatman);
    json_auto_t *undeclared = parse(HEAD "python: {entrypoint_path: adder.py}\n");
    json_auto_t *golang = parse(HEAD "jobtype: golang:1.3.0\njobtype_extra: {gomod: go.mod}\n");
    ck_assert(json_is_object(now) && json_is_object(then) && json_is_object(undeclared) &&
              json_is_object(golang));
}
END_TEST

/* YAML, and the whole list of faults that it must give, one line each. */
static const struct {
    const char *yaml, *faults;
} bad[] = {
    {PYTHON "foo: 1\n", "foo: is not a known key: known are name, owner_email"},
    {"nmae: adder\nowner_email: a@b\ngit: {remote: https://x}\njobtype: golang:1\n",
     "nmae: is not a known key: did you mean 'name'? (line 1)"},
    {PYTHON "  entrypoint_clas: Adder\n", "jobtype_extra.entrypoint_clas: is not a known key: did "
                                          "you mean 'entrypoint_class'? (line 7)"},
    {HEAD "jobtype: python3:latest\nentrypoint_path: adder.py\njobtype_extra: {entrypoint_path: "
          "adder.py}\n",
     "entrypoint_path: is not known here: write it under 'jobtype_extra' (line 5)"},
    {PYTHON "memory_max: 1Gi\n", "memory_max: is not known here: write it under 'resources'"},
    {"owner_email: a@b\ngit: {remote: https://x}\njobtype: golang:1\n",
     "name: is required: the job's name, such as 'adder'"},
    {"name: a\ngit: {remote: https://x}\njobtype: golang:1\n", "owner_email: is required"},
    {"name: a\nowner_email: a@b\njobtype: golang:1\n", "git: is required"},
    {"name: a\nowner_email: a@b\ngit: {}\njobtype: golang:1\n",
     "git.remote: is required: the repository's address, such as https://github.com/me/jobs (line "
     "3)"},
    {"name: a\nowner_email: a@b\ngit:\njobtype: golang:1\n", "git: is required"},
    {"name: a\nowner_email: a@b\ngit: https://x\njobtype: golang:1\n", "git: must be a mapping"},
    {"name: a\nowner_email: a@b\ngit:\n  remote: git@github.com:x/y\njobtype: golang:1\n",
     "git.remote: must be an address that begins with https://, is \"git@github.com:x/y\" (line "
     "4)"},
    {"name: a\nowner_email: a@b\ngit:\n  remote: https://x\n  branch: --upload-pack=x\njobtype: "
     "golang:1\n",
     "git.branch: must be the name of a branch or tag, is \"--upload-pack=x\" (line 5)"},
    {"name: a\nowner_email: a@b\ngit: {remote: https://x, directory: ../y}\njobtype: golang:1\n",
     "git.directory: must be a relative path inside the repository, is \"../y\""},
    {"name: Adder\nowner_email: a@b\ngit: {remote: https://x}\njobtype: golang:1\n",
     "name: must be lower-case letters and digits, joined by '-', such as my-job, is \"Adder\""},
    {"name: a b\nowner_email: a@b\ngit: {remote: https://x}\njobtype: golang:1\n", "name: must be"},
    {"name: -a\nowner_email: a@b\ngit: {remote: https://x}\njobtype: golang:1\n", "name: must be"},
    {"name: ../a\nowner_email: a@b\ngit: {remote: https://x}\njobtype: golang:1\n",
     "name: must be"},
    {"name: 5\nowner_email: a@b\ngit: {remote: https://x}\njobtype: golang:1\n",
     "name: must be a string, is 5: write it in quotes (line 1)"},
    {"name: a\nowner_email: jane\ngit: {remote: https://x}\njobtype: golang:1\n",
     "owner_email: must be an e-mail address such as jane@example.com, is \"jane\" (line 2)"},
    {PYTHON "version: zzz\n",
     "version: 'zzz' is not a version: write MAJOR.MINOR.PATCH such as 1.2.3"},
    {PYTHON "version: 1.0\n", "version: must be a string, is 1.0: write it in quotes (line 7)"},
    {PYTHON "version: 01.0.0\n", "version: '01.0.0' is not a version"},
    {HEAD "jobtype: python3\njobtype_extra: {entrypoint_path: a.py}\n",
     "jobtype: must be NAME:VERSION such as python3:latest, is \"python3\" (line 4)"},
    {HEAD, "jobtype: is required: the language wrapper and its version, such as python3:latest"},
    {HEAD "lang: golang\njobtype: golang:1\n",
     "lang: is the old spelling of jobtype: keep jobtype, remove lang (line 4)"},
    {HEAD "jobtype: python3:latest\n",
     "jobtype_extra.entrypoint_path: is required: the Python file that holds the class, such as "
     "adder.py"},
    {HEAD "lang: python3\npython: {entrypoint_class: A}\n",
     "python.entrypoint_path: is required: the Python file that holds the class"},
    {HEAD "jobtype: golang:1\njobtype_extra: {gomod: x}\ngolang: {gomod: y}\n",
     "golang: is the old spelling of jobtype_extra: move its keys there (line 6)"},
    {PYTHON "wrapper_properties: {max_concurrency: 1}\n",
     "wrapper_properties: is the old spelling of jobtype_extra"},
    {HEAD "jobtype: python3:latest\njobtype_extra: {entrypoint_path: ../a.py}\n",
     "jobtype_extra.entrypoint_path: must be a relative path inside the job's folder"},
    {HEAD "jobtype: python3:latest\njobtype_extra: {entrypoint_path: /a.py}\n",
     "jobtype_extra.entrypoint_path: must be a relative path inside the job's folder"},
    {HEAD "jobtype: python3:latest\njobtype_extra: {entrypoint_path: \"\"}\n",
     "jobtype_extra.entrypoint_path: must not be empty"},
    {PYTHON "  max_concurrency: -1\n", "jobtype_extra.max_concurrency: must be at least 0, is -1"},
    {PYTHON "  max_concurrency: \"4\"\n",
     "jobtype_extra.max_concurrency: must be a whole number, is \"4\""},
    {PYTHON "  python_version: 3.11\n",
     "jobtype_extra.python_version: must be a string, is 3.11: write it in quotes (line 7)"},
    {PYTHON "  entrypoint_class: Adder Model\n",
     "jobtype_extra.entrypoint_class: must be the name of a Python class"},
    {PYTHON "  request_timeout_s: 0\n",
     "jobtype_extra.request_timeout_s: must be at least 1, is 0"},
    {PYTHON "replicas: 51\n", "replicas: must be at most 50, is 51 (line 7)"},
    {PYTHON "replicas: 0\n", "replicas: must be at least 1, is 0"},
    {PYTHON "replicas: 1.5\n", "replicas: must be a whole number, is 1.5"},
    {PYTHON "image_type: vm\n", "image_type: must be \"docker\", is \"vm\""},
    {PYTHON "resources: {memory_max: 1GB}\n", "resources.memory_max: '1GB' is not a quantity: "
                                              "write a number with an optional suffix such as "
                                              "256Mi"},
    {PYTHON "resources: {memory_max: 512}\n",
     "resources.memory_max: 512 is less than 4Mi, too little for any job: did you mean 512Mi?"},
    {PYTHON "resources: {cpu_max: 0}\n", "resources.cpu_max: must be more than 0"},
    {PYTHON "resources: {cpu_max: -1}\n", "resources.cpu_max: '-1' is not a quantity"},
    {PYTHON "resources: {memory_min: 2Gi, memory_max: 1Gi}\n",
     "resources.memory_min: is more than resources.memory_max: lower it, or raise the other"},
    {PYTHON "resources: {cpu: 1}\n", "resources.cpu: is not a known key: "},
    {PYTHON "build_env: {A: 1}\n",
     "build_env.A: must be a string, is 1: write it in quotes (line 7)"},
    {PYTHON "build_env: {A: null}\n", "build_env.A: must be a string, is null"},
    {PYTHON "build_env: {\"A=B\": x}\n", "build_env.A=B: is no name for an environment variable"},
    {PYTHON "runtime_env: {AUTH_TOKEN: x}\n",
     "runtime_env.AUTH_TOKEN: is set by Racetrack itself: take another name"},
    {PYTHON "runtime_env: [A]\n", "runtime_env: must be a mapping, is a list"},
    {PYTHON "public_endpoints: [/ok, no]\n", "public_endpoints[1]: must be a path that begins with "
                                             "'/', such as /api/v1/perform, is \"no\""},
    {PYTHON "public_endpoints: /x\n", "public_endpoints: must be a list, is \"/x\""},
    {PYTHON "system_dependencies: [\"-oDebug\"]\n",
     "system_dependencies[0]: must be the name of a package, is \"-oDebug\""},
    {PYTHON "labels: [a]\n", "labels: must be a mapping, is a list"},
    {PYTHON "extends: ../base.yaml\n", "extends: must be merged before it is sent"},
    {PYTHON "jobtype_version: 1\n", "jobtype_version: is not a known key: did you mean 'jobtype'?"},
};
START_TEST(fault_is_one_entry_that_says_what_to_write)
{
    json_t *manifest = NULL;
    struct trk_err err = {0};
    int rc = trk_manifest_parse(bad[_i].yaml, strlen(bad[_i].yaml), "job.yaml", &manifest, &err);
    ck_assert_int_eq(rc, TRK_SCHEMA);
    ck_assert_ptr_null(manifest);
    trk_autofree char *wanted = trk_xasprintf("job.yaml is not valid: %s", bad[_i].faults);
    ck_assert_msg(trk_str_has_prefix(err.text, wanted), "got  '%s'\nwant '%s'", err.text, wanted);
    ck_assert_msg(strchr(err.text, '\n') == NULL, "more than one entry: %s", err.text);
}
END_TEST

START_TEST(all_faults_are_listed)
{
    static const char yaml[] = "nmae: adder\nowner_email: jane\ngit:\n  remote: ftp://x\n"
                               "version: 1\njobtype: python3:latest\nreplicas: 99\n";
    json_t *manifest = NULL;
    struct trk_err err = {0};
    ck_assert_int_eq(trk_manifest_parse(yaml, strlen(yaml), "job.yaml", &manifest, &err),
                     TRK_SCHEMA);
    static const char *const parts[] = {
        "job.yaml is not valid:\n", "\n  nmae: ",    "\n  owner_email: ",
        "\n  git.remote: ",         "\n  version: ", "\n  jobtype_extra.entrypoint_path: ",
        "\n  replicas: ",
    };
    for (size_t i = 0; i < TRK_COUNT(parts); i++) {
        ck_assert_msg(strstr(err.text, parts[i]) != NULL, "%s is missing in\n%s", parts[i],
                      err.text);
    }
}
END_TEST

START_TEST(what_is_no_mapping_is_refused)
{
    static const char *const texts[] = {"", "- a", "text", "5", "null"};
    for (size_t i = 0; i < TRK_COUNT(texts); i++) {
        json_t *manifest = NULL;
        struct trk_err err = {0};
        ck_assert_int_eq(
            trk_manifest_parse(texts[i], strlen(texts[i]), "job.yaml", &manifest, &err),
            TRK_SCHEMA);
        ck_assert_msg(strstr(err.text, "name, owner_email, git") != NULL, "%s", err.text);
    }
}
END_TEST

START_TEST(deprecated_keys_give_warnings)
{
    json_auto_t *manifest = parse(fatman);
    struct trk_err err = {0};
    trk_autofree struct trk_faults *faults = trk_xcalloc(1, sizeof(*faults));
    trk_autofree struct trk_faults *warnings = trk_xcalloc(1, sizeof(*warnings));
    ck_assert_int_eq(trk_manifest_check(manifest, faults, warnings), 0);
    ck_assert_int_eq(trk_faults_to_err(warnings, TRK_INVALID, NULL, &err), TRK_INVALID);
    ck_assert_str_eq(err.text,
                     "lang: is deprecated: write 'jobtype: python3:latest'\n"
                     "python: is deprecated: move its keys to 'jobtype_extra'\n"
                     "wrapper_properties: is deprecated: move its keys to 'jobtype_extra'");
    warnings->count = 0;
    json_auto_t *now = parse(full);
    ck_assert_int_eq(trk_manifest_check(now, faults, warnings), 0);
    ck_assert_uint_eq(warnings->count, 0);
}
END_TEST

START_TEST(job_type_is_one_record_for_both_eras)
{
    struct trk_python_spec spec;
    const char *name, *version;
    json_auto_t *now = parse(full);
    ck_assert_int_eq(trk_manifest_job_type(now, &name, &version, NULL), 0);
    ck_assert_str_eq(name, "python3");
    ck_assert_str_eq(version, "2.15.0");
    ck_assert_int_eq(trk_manifest_python(now, &spec, NULL), 0);
    ck_assert_str_eq(spec.entrypoint_path, "adder.py");
    ck_assert_str_eq(spec.entrypoint_class, "AdderModel");
    ck_assert_str_eq(spec.requirements_path, "requirements.txt");
    ck_assert_str_eq(spec.home_page, "/webview");
    ck_assert_int_eq(spec.max_concurrency, 1);
    ck_assert_int_eq(spec.max_concurrency_queue, 5);
    ck_assert_int_eq(spec.request_timeout_s, 60);

    json_auto_t *then = parse(fatman);
    ck_assert_int_eq(trk_manifest_job_type(then, &name, &version, NULL), 0);
    ck_assert_str_eq(name, "python3");
    ck_assert_str_eq(version, "latest");
    ck_assert_int_eq(trk_manifest_python(then, &spec, NULL), 0);
    ck_assert_str_eq(spec.entrypoint_path, "adder.py");
    ck_assert_int_eq(spec.max_concurrency, 3);
    ck_assert_int_eq(spec.max_concurrency_queue, -1);
    ck_assert_ptr_null(spec.home_page);

    struct trk_err err = {0};
    json_auto_t *other = parse(HEAD "jobtype: cobol:1\n");
    ck_assert_int_eq(trk_manifest_job_type(other, &name, &version, &err), TRK_INVALID);
    ck_assert_str_eq(err.text,
                     "jobtype: the job type 'cobol' is not available here; available: python3");
    json_auto_t *longer = parse(HEAD "jobtype: python33:1\n");
    ck_assert_int_eq(trk_manifest_job_type(longer, &name, &version, &err), TRK_INVALID);
}
END_TEST

START_TEST(full_manifest_has_every_field)
{
    json_auto_t *manifest = parse(PYTHON);
    json_auto_t *shown = trk_manifest_full(manifest);
    trk_autofree char *text = trk_json_text(shown);
    ck_assert_str_eq(
        text,
        "{\"name\":\"adder\",\"owner_email\":\"jane@example.com\",\"git\":{\"remote\":"
        "\"https://example.com/x\",\"branch\":null,\"directory\":\".\"},\"version\":\"0.0.1\","
        "\"jobtype\":\"python3:latest\",\"lang\":null,\"extends\":null,\"image_type\":\"docker\","
        "\"system_dependencies\":null,\"python\":null,\"golang\":null,\"docker\":null,"
        "\"build_env\":null,\"runtime_env\":null,\"secret_build_env_file\":null,"
        "\"secret_runtime_env_file\":null,\"labels\":null,\"public_endpoints\":null,\"replicas\":1,"
        "\"resources\":null,\"jobtype_extra\":{\"entrypoint_path\":\"adder.py\"},"
        "\"wrapper_properties\":null,\"infrastructure_target\":null}");
    trk_autofree struct trk_faults *faults = trk_xcalloc(1, sizeof(*faults));
    ck_assert_int_eq(trk_manifest_check(shown, faults, NULL), 0); /* nulls count as missing */
    json_object_set_new(json_object_get(shown, "git"), "branch", json_string("changed"));
    ck_assert_ptr_null(json_object_get(json_object_get(manifest, "git"), "branch")); /* a copy */
}
END_TEST

/* ---- quantities ---- */

static const struct {
    const char *text;
    int64_t milli; /* -1: refused */
} quantities[] = {
    {"1", 1000},
    {"0", 0},
    {"10m", 10},
    {"1000m", 1000},
    {"1.5", 1500},
    {"0.0001", 1}, /* rounded up: never none */
    {"1u", 1},
    {"2000u", 2},
    {"1n", 1},
    {"1p", 1},
    {"1000000000p", 1},
    {"1000000001p", 2},
    {"1k", 1000000},
    {"1Ki", 1024000},
    {"256Mi", INT64_C(268435456000)},
    {"1.5Gi", INT64_C(1610612736000)},
    {"1G", INT64_C(1000000000000)},
    {"4Ti", INT64_C(4398046511104000)},
    {"1P", INT64_C(1000000000000000000)},
    {"8Pi", INT64_C(9007199254740992000)},
    {"0E", 0},
    {"007", 7000},
    {"9223372036854775.807", INT64_MAX},
    {"9223372036854775.808", -1},
    {"1E", -1},
    {"9Ei", -1},
    {"1000000000000000000E", -1},
    {"99999999999999999999", -1},
    {"0.00000000000000000001", -1},
    {"", -1},
    {"m", -1},
    {"Mi", -1},
    {"1.", -1},
    {".5", -1},
    {"1.5.5", -1},
    {"-1", -1},
    {"+1", -1},
    {"1e3", -1},
    {" 1", -1},
    {"1 ", -1},
    {"1 Mi", -1},
    {"1mi", -1},
    {"1MI", -1},
    {"1MB", -1},
    {"1K", -1},
    {"0x10", -1},
    {"NaN", -1},
};
START_TEST(quantity_is_read_or_refused)
{
    int64_t milli = -1;
    struct trk_err err = {0};
    int rc = trk_quantity_parse(quantities[_i].text, &milli, &err);
    ck_assert_msg((rc == 0) == (quantities[_i].milli >= 0), "'%s': %s", quantities[_i].text,
                  err.text);
    ck_assert_msg(milli == quantities[_i].milli, "'%s' gave %lld", quantities[_i].text,
                  (long long)milli);
}
END_TEST

/* ---- resource names ---- */

static const struct {
    const char *name, *version, *wanted; /* NULL: a digest is added */
} names[] = {
    {"adder", "0.0.1", "job-adder-v-0-0-1"},
    {"my-job", "10.20.30", "job-my-job-v-10-20-30"},
    {"adder", "1.0.0-rc.1", NULL},
    {"adder", "1.0.0-rc-1", NULL},
    {"adder", "1.0.0-RC-1", NULL},
    {"adder", "1.0.0-rc--1", NULL},
    {"adder", "1.0.0+rc-1", NULL},
    {"adder", "1.0.0-rc", NULL},
    {"adder", "1.0.0-1", NULL},
    {"adder", "1.0.0+1", NULL},
    {"adder-v-1-0-0", "2.0.0", "job-adder-v-1-0-0-v-2-0-0"},
    {"adder-v-1.0.0", "2.0.0", NULL},
    {"my_job", "1.0.0", NULL},
    {"my-job", "1.0.0", "job-my-job-v-1-0-0"},
    {"my.job", "1.0.0", NULL},
    {"a-name-of-sixty-three-characters-which-is-as-long-as-a-label-is", "1.0.0", NULL},
    {"a-name-of-sixty-three-characters-which-is-as-long-as-a-label-iz", "1.0.0", NULL},
    {"a-name-of-sixty-three-characters-which-is-as-long-as-a-label-is", "1.0.1", NULL},
    {"job", "18446744073709551615.18446744073709551615.18446744073709551615", NULL},
};
START_TEST(resource_names_are_labels_and_differ)
{
    char found[TRK_COUNT(names)][80];
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        struct trk_buf buf;
        trk_buf_init(&buf, 79);
        ck_assert_int_eq(trk_manifest_resource_name(names[i].name, names[i].version, &buf), 0);
        (void)snprintf(found[i], sizeof(found[i]), "%s", buf.data);
        trk_buf_fini(&buf);
        ck_assert_msg(strlen(found[i]) <= 63, "%s", found[i]);
        ck_assert_uint_eq(strspn(found[i], "abcdefghijklmnopqrstuvwxyz0123456789-"),
                          strlen(found[i]));
        ck_assert(found[i][strlen(found[i]) - 1] != '-');
        ck_assert(trk_str_has_prefix(found[i], "job-"));
        if (names[i].wanted != NULL) {
            ck_assert_str_eq(found[i], names[i].wanted);
        } else {
            ck_assert_msg(strstr(found[i], "-x") != NULL, "%s", found[i]);
        }
        for (size_t j = 0; j < i; j++) {
            ck_assert_msg(strcmp(found[i], found[j]) != 0, "%s %s and %s %s share %s",
                          names[i].name, names[i].version, names[j].name, names[j].version,
                          found[i]);
        }
    }
}
END_TEST

/* ---- files ---- */

static char dir[512];

static void setup(void)
{
    const char *scratch = getenv("TEST_TMP");
    (void)snprintf(dir, sizeof(dir), "%s/manifest-XXXXXX", scratch != NULL ? scratch : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void teardown(void)
{
    ck_assert_int_eq(trk_rm_rf(dir, NULL), 0);
}

static void put(const char *name, const char *text)
{
    struct trk_err err = {0};
    trk_autofree char *path = trk_xasprintf("%s/%s", dir, name);
    trk_autofree char *folder = trk_xstrndup(path, (size_t)(strrchr(path, '/') - path));
    ck_assert_int_eq(trk_mkdir_p(folder, 0755, NULL), 0);
    ck_assert_msg(trk_file_write(path, text, strlen(text), 0600, &err) == 0, "%s", err.text);
}

/* The manifest of a path below the scratch folder as JSON text, or the error's text. */
static char *load(const char *name, const char *const *extra_vars)
{
    json_auto_t *manifest = NULL;
    struct trk_err err = {0};
    trk_autofree char *path = trk_xasprintf("%s/%s", dir, name);
    if (trk_manifest_load(path, extra_vars, &manifest, NULL, NULL, &err) < 0) {
        return trk_xstrdup(err.text);
    }
    return trk_json_text(manifest);
}

static void assert_says(char *text, const char *part)
{
    ck_assert_msg(strstr(text, part) != NULL, "'%s' is not in\n%s", part, text);
    free(text);
}

START_TEST(file_is_found)
{
    json_auto_t *manifest = NULL;
    trk_autofree char *path = NULL;
    put("new/job.yaml", PYTHON "version: \"1.0.0\"\n");
    put("new/fatman.yaml", "broken: [");
    put("old/fatman.yaml", fatman);
    put("named/other.yaml", PYTHON);
    assert_says(load("new", NULL), "1.0.0");
    assert_says(load("old/", NULL), "AdderModel");
    assert_says(load("named/other.yaml", NULL), "adder");
    assert_says(load("named", NULL), "there is no job.yaml in ");
    assert_says(load("missing", NULL), "missing: No such file");
    ck_assert_int_eq(trk_manifest_load(dir, NULL, &manifest, &path, NULL, NULL), TRK_NOT_FOUND);
    put("job.yaml", PYTHON);
    ck_assert_int_eq(trk_manifest_load(dir, NULL, &manifest, &path, NULL, NULL), 0);
    ck_assert(trk_str_has_suffix(path, "/job.yaml"));
}
END_TEST

START_TEST(base_is_overlaid)
{
    put("base.yaml", PYTHON "version: \"1.0.0\"\nlabels: {a: 1, b: {c: 2}}\n"
                            "public_endpoints: [/x, /y]\n");
    put("sub/job.yaml", "extends: ../base.yaml\nversion: \"2.0.0\"\nlabels: {b: {d: 3}}\n"
                        "public_endpoints: [/z]\njobtype_extra: {max_concurrency: 2}\n");
    trk_autofree char *text = load("sub", NULL);
    assert_says(trk_xstrdup(text), "\"version\":\"2.0.0\"");
    assert_says(trk_xstrdup(text), "\"labels\":{\"a\":1,\"b\":{\"c\":2,\"d\":3}}");
    assert_says(trk_xstrdup(text), "\"public_endpoints\":[\"/z\"]");
    assert_says(trk_xstrdup(text), "\"extends\":null");
    assert_says(trk_xstrdup(text), "{\"entrypoint_path\":\"adder.py\",\"max_concurrency\":2}");
}
END_TEST

START_TEST(base_has_its_rules)
{
    put("two.yaml", "extends: one.yaml\n");
    put("one.yaml", "extends: base.yaml\nversion: \"2.0.0\"\n");
    put("base.yaml", PYTHON);
    put("list.yaml", "- a\n");
    put("absolute.yaml", "extends: /etc/hosts\n");
    put("number.yaml", "extends: 5\n");
    put("missing.yaml", "extends: none.yaml\n");
    put("nomap.yaml", "extends: list.yaml\n");
    assert_says(load("one.yaml", NULL), "2.0.0");
    assert_says(load("two.yaml", NULL), "extends another manifest itself, one level is allowed");
    assert_says(load("absolute.yaml", NULL), "relative to this file");
    assert_says(load("number.yaml", NULL), "relative to this file");
    assert_says(load("missing.yaml", NULL), "none.yaml: No such file");
    assert_says(load("nomap.yaml", NULL), "list.yaml: must hold");
}
END_TEST

START_TEST(extra_vars_come_last)
{
    static const char *const vars[] = {"version=3.0.0",   "git.branch=dev", "replicas=3",
                                       "labels={a: [1]}", "labels.b=x=y",   NULL};
    put("base.yaml", PYTHON);
    put("job.yaml", "extends: base.yaml\nversion: \"2.0.0\"\n");
    trk_autofree char *text = load("job.yaml", vars);
    assert_says(trk_xstrdup(text), "\"version\":\"3.0.0\"");
    assert_says(trk_xstrdup(text), "\"branch\":\"dev\"");
    assert_says(trk_xstrdup(text), "\"replicas\":3");
    assert_says(trk_xstrdup(text), "\"labels\":{\"a\":[1],\"b\":\"x=y\"}");
}
END_TEST

START_TEST(bad_extra_vars_are_refused)
{
    static const struct {
        const char *var, *says;
    } rows[] = {
        {"version", "write key=value"},
        {"=x", "write key=value"},
        {"labels.=x", "has no section 'labels'"},
        {"labels.a=x", "the manifest has no section 'labels'"},
        {"name.a=x", "the manifest has no section 'name'"},
        {"git.=x", "write key=value"},
        {"a=[", "extra variable"},
        {"a=*x", "aliases"},
        {"nmae=x", "did you mean 'name'?"},
    };
    put("job.yaml", PYTHON);
    for (size_t i = 0; i < TRK_COUNT(rows); i++) {
        const char *const vars[] = {rows[i].var, NULL};
        assert_says(load("job.yaml", vars), rows[i].says);
    }
}
END_TEST

START_TEST(huge_file_is_refused)
{
    trk_autofree char *text = trk_xmalloc(TRK_YAML_BYTES_MAX + 2);
    memset(text, '#', TRK_YAML_BYTES_MAX + 1);
    text[TRK_YAML_BYTES_MAX + 1] = '\0';
    put("job.yaml", text);
    assert_says(load("job.yaml", NULL), "at most 262144");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("manifest");
    TCase *tc = tcase_create("manifest");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, both_eras_are_accepted);
    tcase_add_loop_test(tc, fault_is_one_entry_that_says_what_to_write, 0, TRK_COUNT(bad));
    tcase_add_test(tc, all_faults_are_listed);
    tcase_add_test(tc, what_is_no_mapping_is_refused);
    tcase_add_test(tc, deprecated_keys_give_warnings);
    tcase_add_test(tc, job_type_is_one_record_for_both_eras);
    tcase_add_test(tc, full_manifest_has_every_field);
    tcase_add_loop_test(tc, quantity_is_read_or_refused, 0, TRK_COUNT(quantities));
    tcase_add_test(tc, resource_names_are_labels_and_differ);
    tcase_add_test(tc, file_is_found);
    tcase_add_test(tc, base_is_overlaid);
    tcase_add_test(tc, base_has_its_rules);
    tcase_add_test(tc, extra_vars_come_last);
    tcase_add_test(tc, bad_extra_vars_are_refused);
    tcase_add_test(tc, huge_file_is_refused);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
