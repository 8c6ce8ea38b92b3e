#include <inttypes.h>
#include <string.h>

#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/config/config.h"
#include "libtrack/config/config_value.h"
#include "libtrack/data/json.h"
#include "libtrack/data/yaml.h"
#include "version.h"

static bool has_flag(const struct trk_config_entry *entry, unsigned flag)
{
    return (entry->flags & flag) != 0;
}

/* A value as YAML would write it. */
static void print_value(const struct trk_config_entry *entry, const void *config, FILE *out)
{
    const void *field = (const char *)config + entry->offset;
    if (has_flag(entry, TRK_CONFIG_SECRET)) {
        const char *text = *(char *const *)field;
        (void)fputs(trk_str_is_empty(text) ? "\"\"" : "***", out);
        return;
    }
    json_auto_t *value = NULL;
    switch (entry->type) {
    case TRK_CONFIG_INT:
        value = json_integer(*(const int64_t *)field);
        break;
    case TRK_CONFIG_BOOL:
        value = json_boolean(*(const bool *)field);
        break;
    case TRK_CONFIG_STRING:
    case TRK_CONFIG_QUANTITY:
        value = json_string(*(char *const *)field);
        break;
    }
    struct trk_buf buf;
    trk_buf_init(&buf, 1 << 20);
    (void)trk_yaml_dump(value, &buf);
    (void)fprintf(out, "%.*s", buf.len > 0 ? (int)buf.len - 1 : 0, buf.data);
    trk_buf_fini(&buf);
}

void trk_config_show(const struct trk_config_table *table, const void *config, FILE *out)
{
    json_auto_t *file = NULL;
    if (trk_config_read_file(&file, NULL) < 0) {
        file = json_object(); /* it was read a moment ago: only the sources are lost */
    }
    for (size_t i = 0; i < table->count; i++) {
        const struct trk_config_entry *entry = &table->entries[i];
        struct trk_config_value value;
        if (has_flag(entry, TRK_CONFIG_DEPRECATED)) {
            continue;
        }
        trk_config_resolve(entry, file, &value);
        (void)fprintf(out, "%s: ", entry->name);
        print_value(entry, config, out);
        if (value.source == TRK_CONFIG_FROM_ENV) {
            (void)fprintf(out, "  # env %s\n", entry->env);
        } else {
            (void)fprintf(out, "  # %s\n",
                          value.source == TRK_CONFIG_FROM_FILE ? "file" : "default");
        }
    }
}

void trk_config_help(const struct trk_config_table *table, FILE *out)
{
    (void)fprintf(out,
                  "%s - %s\n\n"
                  "Usage: %s [OPTION]\n\n"
                  "  --help             print this\n"
                  "  --version          print the version\n"
                  "  --check-config     check the configuration, list every fault\n"
                  "  --show-config      print the effective configuration\n"
                  "  --config-markdown  print the table of settings as Markdown\n\n"
                  "Settings come from the environment, else from the YAML file that CONFIG_FILE "
                  "names,\nelse they have their defaults. Names in the file are in lower case.\n\n",
                  table->service, table->summary, table->service);
    for (size_t i = 0; i < table->count; i++) {
        const struct trk_config_entry *entry = &table->entries[i];
        if (has_flag(entry, TRK_CONFIG_DEPRECATED)) {
            continue;
        }
        (void)fprintf(out, "  %s%s%s%s\n      %s", entry->name, entry->env != NULL ? " (" : "",
                      entry->env != NULL ? entry->env : "", entry->env != NULL ? ")" : "",
                      entry->help);
        if (!trk_str_is_empty(entry->unit)) {
            (void)fprintf(out, " [%s]", entry->unit);
        }
        if (!trk_str_is_empty(entry->default_text) && !has_flag(entry, TRK_CONFIG_SECRET)) {
            (void)fprintf(out, "; default %s", entry->default_text);
        }
        (void)fputc('\n', out);
    }
}

static const char *type_name(enum trk_config_type type)
{
    static const char *const names[] = {
        [TRK_CONFIG_STRING] = "text",
        [TRK_CONFIG_INT] = "number",
        [TRK_CONFIG_BOOL] = "true/false",
        [TRK_CONFIG_QUANTITY] = "quantity",
    };
    return names[type];
}

/* A table's cell: no pipe may end it. */
static void print_cell(const char *text, FILE *out)
{
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '|') {
            (void)fputc('\\', out);
        }
        (void)fputc(*p == '\n' ? ' ' : *p, out);
    }
}

static void print_row(const struct trk_config_entry *entry, FILE *out)
{
    bool has_default = !trk_str_is_empty(entry->default_text);
    (void)fprintf(out, "| `%s` | %s%s%s | ", entry->name, entry->env != NULL ? "`" : "",
                  entry->env != NULL ? entry->env : "", entry->env != NULL ? "`" : "");
    (void)fputs(type_name(entry->type), out);
    if (!trk_str_is_empty(entry->unit)) {
        (void)fprintf(out, ", %s", entry->unit);
    }
    if (entry->type == TRK_CONFIG_INT && entry->max < INT64_MAX) {
        (void)fprintf(out, ", %" PRId64 " to %" PRId64, entry->min, entry->max);
    }
    (void)fprintf(out, " | %s", has_default ? "`" : "");
    print_cell(has_default ? entry->default_text : "", out);
    (void)fprintf(out, "%s | ", has_default ? "`" : "");
    print_cell(entry->help, out);
    if (has_flag(entry, TRK_CONFIG_SECRET)) {
        (void)fputs(" (secret)", out);
    }
    if (has_flag(entry, TRK_CONFIG_DEPRECATED)) {
        (void)fputs(" (deprecated: accepted, does nothing)", out);
    }
    (void)fputs(" |\n", out);
}

void trk_config_markdown(const struct trk_config_table *table, FILE *out)
{
    (void)fprintf(out, "## %s\n\n%s\n\n", table->service, table->summary);
    (void)fputs("| setting | environment | type | default | meaning |\n|---|---|---|---|---|\n",
                out);
    for (size_t i = 0; i < table->count; i++) {
        print_row(&table->entries[i], out);
    }
}

/* ---- the beginning of a service's main() ---- */

static const void *field_named(const struct trk_config_table *table, const void *config,
                               const char *name, enum trk_config_type type)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct trk_config_entry *entry = &table->entries[i];
        if (strcmp(entry->name, name) == 0 && entry->type == type) {
            return (const char *)config + entry->offset;
        }
    }
    return NULL;
}

static void init_log(const struct trk_config_table *table, const void *config)
{
    char *const *level = field_named(table, config, "log_level", TRK_CONFIG_STRING);
    const bool *structured = field_named(table, config, "log_structured", TRK_CONFIG_BOOL);
    if (level != NULL && structured != NULL) {
        struct trk_log_options options = {
            .level = TRK_LOG_INFO, .structured = *structured, .fd = -1};
        (void)trk_log_level_parse(*level, &options.level); /* was checked when it was loaded */
        trk_log_init(&options);
    }
}

static int usage_fault(const struct trk_config_table *table, const char *option)
{
    static const char *const options[] = {"--help", "--version", "--check-config", "--show-config",
                                          "--config-markdown"};
    const char *near = trk_str_nearest(option, options, TRK_COUNT(options));
    (void)fprintf(stderr, "%s: unknown option '%s'%s%s%s; see '%s --help'\n", table->service,
                  option, near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                  near != NULL ? "'?" : "", table->service);
    return 2;
}

/* The options that need no configuration; false when `option` is none of them. */
static bool print_only(const struct trk_config_table *table, const char *option)
{
    if (strcmp(option, "--help") == 0 || strcmp(option, "-h") == 0) {
        trk_config_help(table, stdout);
    } else if (strcmp(option, "--version") == 0) {
        (void)printf("%s %s (%s)\n", table->service, TRK_VERSION, TRK_GIT_VERSION);
    } else if (strcmp(option, "--config-markdown") == 0) {
        trk_config_markdown(table, stdout);
    } else {
        return false;
    }
    return true;
}

bool trk_service_main(const struct trk_config_table *table, void *config, int argc, char **argv,
                      int *ret_exit_code)
{
    const char *option = argc > 1 && argv[1][0] == '-' ? argv[1] : "";
    bool checks = strcmp(option, "--check-config") == 0;
    bool shows = strcmp(option, "--show-config") == 0;
    trk_json_init();
    trk_log_init_from_env();
    *ret_exit_code = 0;
    if (print_only(table, option)) {
        return true;
    }
    if (option[0] != '\0' && !checks && !shows) {
        *ret_exit_code = usage_fault(table, option);
        return true;
    }
    struct trk_err err = {0};
    if (trk_config_load(table, config, &err) < 0) {
        (void)fprintf(stderr, "%s: the configuration is not valid:\n%s\n", table->service,
                      err.text);
        *ret_exit_code = 1;
        return true;
    }
    if (checks) {
        (void)puts("configuration is valid");
    } else if (shows) {
        trk_config_show(table, config, stdout);
    }
    if (checks || shows) {
        trk_config_fini(table, config);
        return true;
    }
    init_log(table, config);
    return false;
}
