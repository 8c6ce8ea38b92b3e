#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/config/config.h"

struct sample_config {
    char *name;
    int64_t port;
    bool flag;
    char *memory;
    char *key;
    char *log_level;
    bool log_structured;
};

static const struct trk_config_entry entries[] = {
    {"name", TRK_CONFIG_STRING, offsetof(struct sample_config, name), "sample", NULL, "T_NAME", 0,
     0, 0, "the name"},
    {"http_port", TRK_CONFIG_INT, offsetof(struct sample_config, port), "7202", NULL, "T_PORT", 0,
     65535, 0, "port of the API"},
    {"flag", TRK_CONFIG_BOOL, offsetof(struct sample_config, flag), "false", NULL, "T_FLAG", 0, 0,
     0, "a | switch"},
    {"memory", TRK_CONFIG_QUANTITY, offsetof(struct sample_config, memory), "256Mi", "bytes",
     "T_MEMORY", 0, 0, 0, "how much"},
    {"key", TRK_CONFIG_STRING, offsetof(struct sample_config, key), "", NULL, "T_KEY", 0, 0,
     TRK_CONFIG_SECRET, "a key"},
    {"log_level", TRK_CONFIG_STRING, offsetof(struct sample_config, log_level), "info", NULL,
     "T_LOG_LEVEL", 0, 0, 0, "least level of log lines"},
    {"log_structured", TRK_CONFIG_BOOL, offsetof(struct sample_config, log_structured), "false",
     NULL, NULL, 0, 0, 0, "JSON lines"},
    {"plugins_dir", TRK_CONFIG_STRING, 0, "", NULL, "T_PLUGINS_DIR", 0, 0, TRK_CONFIG_DEPRECATED,
     "where plugins lay"},
};

static int check_rules(const void *config, struct trk_err *err)
{
    const struct sample_config *sample = config;
    if (sample->port == 13) {
        return trk_err_set(err, TRK_INVALID, "http_port: 13 brings bad luck");
    }
    return 0;
}

static const struct trk_config_table table = {
    .service = "sample",
    .summary = "shows how it goes",
    .entries = entries,
    .count = TRK_COUNT(entries),
    .check = check_rules,
};

static char dir[512];

static void setup(void)
{
    static const char *const names[] = {"T_NAME", "T_PORT",      "T_FLAG",        "T_MEMORY",
                                        "T_KEY",  "T_LOG_LEVEL", "T_PLUGINS_DIR", "CONFIG_FILE"};
    const char *scratch = getenv("TEST_TMP");
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        ck_assert_int_eq(unsetenv(names[i]), 0);
    }
    (void)snprintf(dir, sizeof(dir), "%s/config-XXXXXX", scratch != NULL ? scratch : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void teardown(void)
{
    ck_assert_int_eq(trk_rm_rf(dir, NULL), 0);
}

static void use_file(const char *text)
{
    trk_autofree char *path = trk_xasprintf("%s/config.yaml", dir);
    ck_assert_int_eq(trk_file_write(path, text, strlen(text), 0600, NULL), 0);
    ck_assert_int_eq(setenv("CONFIG_FILE", path, 1), 0);
}

START_TEST(defaults_file_and_environment_in_this_order)
{
    struct sample_config config;
    struct trk_err err = {0};
    ck_assert_msg(trk_config_load(&table, &config, &err) == 0, "%s", err.text);
    ck_assert_str_eq(config.name, "sample");
    ck_assert_int_eq(config.port, 7202);
    ck_assert(!config.flag);
    ck_assert_str_eq(config.memory, "256Mi");
    ck_assert_str_eq(config.key, "");
    trk_config_fini(&table, &config);
    ck_assert_ptr_null(config.name);

    use_file("name: of the file\nhttp_port: 8000\nflag: true\nmemory: 1.5Gi\n");
    ck_assert_int_eq(setenv("T_PORT", "9000", 1), 0);
    ck_assert_int_eq(setenv("T_NAME", "", 1), 0); /* empty counts as not set */
    ck_assert_msg(trk_config_load(&table, &config, &err) == 0, "%s", err.text);
    ck_assert_str_eq(config.name, "of the file");
    ck_assert_int_eq(config.port, 9000);
    ck_assert(config.flag);
    ck_assert_str_eq(config.memory, "1.5Gi");
    trk_config_fini(&table, &config);
}
END_TEST

START_TEST(every_fault_is_listed)
{
    struct sample_config config;
    struct trk_err err = {0};
    use_file("nmae: x\nhttp_port: 99999\nflag: maybe\nkey: [s3cret]\nname: 5\n");
    ck_assert_int_eq(setenv("T_MEMORY", "1GB", 1), 0);
    ck_assert_int_eq(setenv("T_LOG_LEVEL", "loud", 1), 0);
    ck_assert_int_eq(trk_config_load(&table, &config, &err), TRK_INVALID);
    static const char *const lines[] = {
        "nmae: is not a known setting; did you mean 'name'? (in ",
        "name: must be a text: write the value in quotes\n",
        "http_port: must be between 0 and 65535, is 99999\n",
        "flag: must be true or false, is 'maybe'\n",
        "memory (T_MEMORY): '1GB' is not a quantity",
        "key: has a wrong type or value\n",
        "log_level (T_LOG_LEVEL): must be debug, info, warn or error, is 'loud'",
    };
    for (size_t i = 0; i < TRK_COUNT(lines); i++) {
        ck_assert_msg(strstr(err.text, lines[i]) != NULL, "'%s' is missing in\n%s", lines[i],
                      err.text);
    }
    ck_assert_ptr_null(strstr(err.text, "s3cret"));
    ck_assert_ptr_null(config.name); /* nothing is left to release */
}
END_TEST

START_TEST(broken_file_is_a_fault)
{
    static const struct {
        const char *text, *says;
    } files[] = {
        {"a: [", "CONFIG_FILE: "},
        {"- a\n", "must hold 'name: value' lines"},
        {"flag: true\nflag: false\n", "is there twice"},
        {"name: {a: b}\n", "name: must be one value, not a list or a mapping"},
    };
    struct sample_config config;
    for (size_t i = 0; i < TRK_COUNT(files); i++) {
        struct trk_err err = {0};
        use_file(files[i].text);
        ck_assert_int_eq(trk_config_load(&table, &config, &err), TRK_INVALID);
        ck_assert_msg(strstr(err.text, files[i].says) != NULL, "%s", err.text);
    }
    struct trk_err err = {0};
    ck_assert_int_eq(setenv("CONFIG_FILE", "/no/such/file", 1), 0);
    ck_assert_int_eq(trk_config_load(&table, &config, &err), TRK_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "/no/such/file"));
    use_file("# nothing\n");
    ck_assert_int_eq(trk_config_load(&table, &config, &err), 0);
    trk_config_fini(&table, &config);
}
END_TEST

START_TEST(rules_between_values_are_asked)
{
    struct sample_config config;
    struct trk_err err = {0};
    ck_assert_int_eq(setenv("T_PORT", "13", 1), 0);
    ck_assert_int_eq(trk_config_load(&table, &config, &err), TRK_INVALID);
    ck_assert_str_eq(err.text, "http_port: 13 brings bad luck");
}
END_TEST

START_TEST(deprecated_setting_does_nothing)
{
    struct sample_config config;
    struct trk_err err = {0};
    use_file("plugins_dir: [whatever]\n");
    ck_assert_int_eq(trk_config_load(&table, &config, &err), 0);
    ck_assert_str_eq(config.name, "sample");
    trk_config_fini(&table, &config);
}
END_TEST

START_TEST(effective_values_are_shown)
{
    struct sample_config config;
    char *text = NULL;
    size_t len;
    use_file("http_port: 8000\n");
    ck_assert_int_eq(setenv("T_KEY", "s3cret", 1), 0);
    ck_assert_int_eq(setenv("T_NAME", "yes", 1), 0);
    ck_assert_int_eq(trk_config_load(&table, &config, NULL), 0);
    FILE *out = open_memstream(&text, &len);
    trk_config_show(&table, &config, out);
    (void)fclose(out);
    ck_assert_str_eq(text, "name: \"yes\"  # env T_NAME\n"
                           "http_port: 8000  # file\n"
                           "flag: false  # default\n"
                           "memory: \"256Mi\"  # default\n"
                           "key: ***  # env T_KEY\n"
                           "log_level: info  # default\n"
                           "log_structured: false  # default\n");
    free(text);
    trk_config_fini(&table, &config);
}
END_TEST

START_TEST(table_is_documented)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    trk_config_markdown(&table, out);
    (void)fclose(out);
    ck_assert_ptr_nonnull(strstr(
        text, "| `http_port` | `T_PORT` | number, 0 to 65535 | `7202` | port of the API |\n"));
    ck_assert_ptr_nonnull(
        strstr(text, "| `flag` | `T_FLAG` | true/false | `false` | a \\| switch |"));
    ck_assert_ptr_nonnull(strstr(text, "| `memory` | `T_MEMORY` | quantity, bytes | `256Mi` |"));
    ck_assert_ptr_nonnull(strstr(text, "a key (secret) |"));
    ck_assert_ptr_nonnull(strstr(text, "where plugins lay (deprecated: accepted, does nothing) |"));
    free(text);
}
END_TEST

/* Runs trk_service_main in a child; returns its exit code (100: it would go on), output in `out`.
 */
static int run_main(const char *const *argv, char *out, size_t size)
{
    int fds[2];
    int argc = 0;
    while (argv[argc] != NULL) {
        argc++;
    }
    ck_assert_int_eq(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        struct sample_config config;
        int exit_code = 0;
        (void)dup2(fds[1], STDOUT_FILENO);
        (void)dup2(fds[1], STDERR_FILENO);
        bool is_done = trk_service_main(&table, &config, argc, (char **)(uintptr_t)argv,
                                        &exit_code);
        if (!is_done) {
            trk_config_fini(&table, &config);
        }
        (void)fflush(NULL);
        _exit(is_done ? exit_code : 100);
    }
    (void)close(fds[1]);
    size_t len = 0;
    for (ssize_t n; len + 1 < size && (n = read(fds[0], out + len, size - len - 1)) > 0;) {
        len += (size_t)n;
    }
    out[len] = '\0';
    (void)close(fds[0]);
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static const struct {
    const char *option, *port;
    int exit_code;
    const char *says;
} mains[] = {
    {"--help", "99999", 0, "http_port (T_PORT)\n      port of the API; default 7202"},
    {"-h", NULL, 0, "Usage: sample"},
    {"--version", "99999", 0, "sample "},
    {"--check-config", NULL, 0, "configuration is valid\n"},
    {"--check-config", "99999", 1, "http_port (T_PORT): must be between 0 and 65535, is 99999"},
    {"--show-config", NULL, 0, "http_port: 7202  # default"},
    {"--show-config", "x", 1, "must be a whole number, is 'x'"},
    {"--config-markdown", "x", 0, "| `http_port` |"},
    {"--chekc-config", NULL, 2, "did you mean '--check-config'?"},
    {"--zzz", NULL, 2, "unknown option '--zzz'"},
    {"-", NULL, 2, "unknown option"},
    {NULL, NULL, 100, ""},
    {NULL, "x", 1, "sample: the configuration is not valid:\nhttp_port (T_PORT): must be a whole"},
    {"generate-auth", NULL, 100, ""},
};
START_TEST(service_answers_its_options)
{
    static char out[20000];
    const char *argv[] = {"sample", mains[_i].option, NULL};
    if (mains[_i].port != NULL) {
        ck_assert_int_eq(setenv("T_PORT", mains[_i].port, 1), 0);
    }
    int exit_code = run_main(argv, out, sizeof(out));
    ck_assert_msg(exit_code == mains[_i].exit_code, "exit code %d: %s", exit_code, out);
    ck_assert_msg(strstr(out, mains[_i].says) != NULL, "%s", out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *tc = tcase_create("config");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, defaults_file_and_environment_in_this_order);
    tcase_add_test(tc, every_fault_is_listed);
    tcase_add_test(tc, broken_file_is_a_fault);
    tcase_add_test(tc, rules_between_values_are_asked);
    tcase_add_test(tc, deprecated_setting_does_nothing);
    tcase_add_test(tc, effective_values_are_shown);
    tcase_add_test(tc, table_is_documented);
    tcase_add_loop_test(tc, service_answers_its_options, 0, TRK_COUNT(mains));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures ? 1 : 0;
}
