#include "libtrack/config/config.h"

#include <stdlib.h>
#include <string.h>

#include "libtrack/base/file.h"
#include "libtrack/base/log.h"
#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"
#include "libtrack/config/config_value.h"
#include "libtrack/data/yaml.h"
#include "libtrack/manifest/manifest.h"

#define FILE_BYTES_MAX TRK_YAML_BYTES_MAX
#define FAULTS_BYTES   (64 * 1024)

static const char *const log_levels = "debug, info, warn or error";

/* ---- where a value comes from ---- */

static const char *env_value(const char *name)
{
    const char *value = name != NULL ? getenv(name) : NULL;
    return trk_str_is_empty(value) ? NULL : value;
}

int trk_config_read_file(json_t **ret, struct trk_err *err)
{
    const char *path = env_value("CONFIG_FILE");
    if (path == NULL) {
        *ret = json_object();
        return 0;
    }
    trk_autofree char *text = NULL;
    size_t len;
    json_auto_t *value = NULL;
    if (trk_file_read(path, FILE_BYTES_MAX, &text, &len, err) < 0) {
        return trk_err_wrap(err, "CONFIG_FILE");
    }
    if (trk_yaml_parse(text, len, path, &value, err) < 0) {
        return trk_err_wrap(err, "CONFIG_FILE");
    }
    if (json_is_null(value)) {
        *ret = json_object();
        return 0;
    }
    if (!json_is_object(value)) {
        return trk_err_set(err, TRK_INVALID, "CONFIG_FILE: %s: must hold 'name: value' lines",
                           path);
    }
    *ret = TRK_STEAL(value);
    return 0;
}

void trk_config_resolve(const struct trk_config_entry *entry, const json_t *file,
                        struct trk_config_value *ret)
{
    *ret = (struct trk_config_value){.source = TRK_CONFIG_FROM_DEFAULT,
                                     .text = entry->default_text != NULL ? entry->default_text
                                                                         : ""};
    const char *env = env_value(entry->env);
    const json_t *member = json_object_get(file, entry->name);
    if (env != NULL) {
        ret->source = TRK_CONFIG_FROM_ENV;
        ret->text = env;
    } else if (member != NULL && !json_is_null(member)) {
        ret->source = TRK_CONFIG_FROM_FILE;
        ret->member = member;
    }
}

/* ---- one value ---- */

struct text_value {
    const char *text;
    char number[32];
};

/* The text of a member of the file, or what is wrong with its type. */
static int member_text(const struct trk_config_entry *entry, const json_t *member,
                       struct text_value *ret, struct trk_err *err)
{
    if (json_is_string(member)) {
        ret->text = json_string_value(member);
        return 0;
    }
    bool wants_text = entry->type == TRK_CONFIG_STRING;
    if (wants_text && (json_is_number(member) || json_is_boolean(member))) {
        return trk_err_set(err, TRK_INVALID, "must be a text: write the value in quotes");
    }
    ret->text = ret->number;
    if (json_is_integer(member)) {
        (void)snprintf(ret->number, sizeof(ret->number), "%lld",
                       (long long)json_integer_value(member));
    } else if (json_is_real(member)) {
        (void)snprintf(ret->number, sizeof(ret->number), "%.15g", json_real_value(member));
    } else if (json_is_boolean(member)) {
        ret->text = json_is_true(member) ? "true" : "false";
    } else {
        return trk_err_set(err, TRK_INVALID, "must be one value, not a list or a mapping");
    }
    return 0;
}

static int store(const struct trk_config_entry *entry, const char *text, void *config,
                 struct trk_err *err)
{
    void *field = (char *)config + entry->offset;
    int64_t milli;
    switch (entry->type) {
    case TRK_CONFIG_INT:
        return trk_parse_int64(text, entry->min, entry->max, field, err);
    case TRK_CONFIG_BOOL:
        return trk_parse_bool(text, field, err);
    case TRK_CONFIG_QUANTITY:
        if (trk_quantity_parse(text, &milli, err) < 0) {
            return TRK_INVALID;
        }
        break;
    case TRK_CONFIG_STRING:
        if (strcmp(entry->name, "log_level") == 0) {
            enum trk_log_level level;
            if (trk_log_level_parse(text, &level) < 0) {
                return trk_err_set(err, TRK_INVALID, "must be %s, is '%.64s'", log_levels, text);
            }
        }
        break;
    }
    *(char **)field = trk_xstrdup(text);
    return 0;
}

/* A secret's value must not show up in what is printed about it. */
static const char *fault_text(const struct trk_config_entry *entry, const struct trk_err *err)
{
    bool is_secret = (entry->flags & TRK_CONFIG_SECRET) != 0;
    return is_secret ? "has a wrong type or value" : err->text;
}

static int load_entry(const struct trk_config_entry *entry, const json_t *file, void *config,
                      struct trk_buf *faults)
{
    struct trk_config_value value;
    struct text_value converted;
    struct trk_err err = {0};
    int rc = 0;
    trk_config_resolve(entry, file, &value);
    if ((entry->flags & TRK_CONFIG_DEPRECATED) != 0) {
        if (value.source != TRK_CONFIG_FROM_DEFAULT) {
            trk_log_warn("deprecated setting: it does nothing any more", "name", entry->name, NULL);
        }
        return 0;
    }
    if (value.source == TRK_CONFIG_FROM_FILE) {
        rc = member_text(entry, value.member, &converted, &err);
        value.text = converted.text;
    }
    if (rc == 0) {
        rc = store(entry, value.text, config, &err);
    }
    if (rc == 0) {
        return 0;
    }
    if (value.source == TRK_CONFIG_FROM_DEFAULT && value.text[0] != '\0') {
        trk_die("default of %s: %s", entry->name, err.text);
    }
    const char *origin = value.source == TRK_CONFIG_FROM_ENV ? entry->env : NULL;
    return trk_buf_addf(faults, "%s%s%s%s: %s\n", entry->name, origin != NULL ? " (" : "",
                        origin != NULL ? origin : "", origin != NULL ? ")" : "",
                        fault_text(entry, &err));
}

/* ---- the table ---- */

static void check_unknown_keys(const struct trk_config_table *table, json_t *file,
                               struct trk_buf *faults)
{
    trk_autofree const char **names = trk_xcalloc(table->count, sizeof(*names));
    for (size_t i = 0; i < table->count; i++) {
        names[i] = table->entries[i].name;
    }
    const char *key;
    json_t *value;
    json_object_foreach (file, key, value) {
        bool is_known = false;
        for (size_t i = 0; i < table->count && !is_known; i++) {
            is_known = strcmp(key, names[i]) == 0;
        }
        if (!is_known) {
            const char *near = trk_str_nearest(key, names, table->count);
            (void)trk_buf_addf(faults, "%s: is not a known setting%s%s%s (in %s)\n", key,
                               near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                               near != NULL ? "'?" : "", getenv("CONFIG_FILE"));
        }
    }
}

static void fini_strings(const struct trk_config_table *table, void *config)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct trk_config_entry *entry = &table->entries[i];
        bool is_text = entry->type == TRK_CONFIG_STRING || entry->type == TRK_CONFIG_QUANTITY;
        if (is_text && (entry->flags & TRK_CONFIG_DEPRECATED) == 0) {
            char **field = (char **)((char *)config + entry->offset);
            if (*field != NULL && (entry->flags & TRK_CONFIG_SECRET) != 0) {
                explicit_bzero(*field, strlen(*field));
            }
            free(*field);
            *field = NULL;
        }
    }
}

void trk_config_fini(const struct trk_config_table *table, void *config)
{
    fini_strings(table, config);
}

int trk_config_load(const struct trk_config_table *table, void *config, struct trk_err *err)
{
    struct trk_buf faults;
    struct trk_err fault = {0};
    json_auto_t *file = NULL;
    trk_buf_init(&faults, FAULTS_BYTES);
    for (size_t i = 0; i < table->count; i++) { /* so that a half-filled one can be released */
        const struct trk_config_entry *entry = &table->entries[i];
        bool is_text = entry->type == TRK_CONFIG_STRING || entry->type == TRK_CONFIG_QUANTITY;
        if (is_text && (entry->flags & TRK_CONFIG_DEPRECATED) == 0) {
            *(char **)((char *)config + entry->offset) = NULL;
        }
    }
    if (trk_config_read_file(&file, &fault) < 0) {
        (void)trk_buf_addf(&faults, "%s\n", fault.text);
    } else {
        check_unknown_keys(table, file, &faults);
    }
    for (size_t i = 0; i < table->count; i++) {
        (void)load_entry(&table->entries[i], file, config, &faults);
    }
    if (faults.len == 0 && table->check != NULL && table->check(config, &fault) < 0) {
        (void)trk_buf_addf(&faults, "%s\n", fault.text);
    }
    if (faults.len == 0) {
        trk_buf_fini(&faults);
        return 0;
    }
    fini_strings(table, config);
    faults.data[faults.len - 1] = '\0'; /* the last line break */
    (void)trk_err_set(err, TRK_INVALID, "%s", faults.data);
    trk_buf_fini(&faults);
    return TRK_INVALID;
}
