#include "libtrack/source/secret_file.h"

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"

#define SECRET_FILE_MAX ((size_t)256 << 10)

static void trim(const char **text, size_t *len)
{
    while (*len > 0 && strchr(" \t\r", **text) != NULL) {
        (*text)++;
        (*len)--;
    }
    while (*len > 0 && strchr(" \t\r", (*text)[*len - 1]) != NULL) {
        (*len)--;
    }
}

static int parse_line(const char *line, size_t len, size_t number, const char *name,
                      json_t *variables, struct trk_err *err)
{
    trim(&line, &len);
    if (len == 0 || line[0] == '#' || line[0] == ';' || (line[0] == '[' && line[len - 1] == ']')) {
        return 0;
    }
    size_t key_len = strcspn(line, "=:\n");
    const char *value = line + key_len + 1;
    const char *key = line;
    if (key_len >= len) {
        return trk_err_set(err, TRK_INVALID, "%s, line %zu: KEY=VALUE is expected", name, number);
    }
    size_t value_len = len - key_len - 1;
    trim(&key, &key_len);
    trim(&value, &value_len);
    if (value_len >= 2 && (value[0] == '"' || value[0] == '\'') &&
        value[value_len - 1] == value[0]) {
        value++;
        value_len -= 2;
    }
    if (key_len == 0 ||
        json_object_setn_new(variables, key, key_len, json_stringn(value, value_len)) < 0) {
        return trk_err_set(err, TRK_INVALID, "%s, line %zu: KEY=VALUE in UTF-8 is expected", name,
                           number);
    }
    return 0;
}

int trk_secret_lines_parse(const char *text, const char *name, json_t **ret, struct trk_err *err)
{
    json_auto_t *variables = json_object();
    for (size_t number = 1; *text != '\0'; number++) {
        size_t len = strcspn(text, "\n");
        int rc = parse_line(text, len, number, name, variables, err);
        if (rc < 0) {
            return rc;
        }
        text += len + (text[len] == '\n' ? 1 : 0);
    }
    *ret = json_incref(variables);
    return 0;
}

int trk_secret_file_read(const char *folder, const char *path, json_t **ret, struct trk_err *err)
{
    trk_autofree char *full = path[0] == '/' ? trk_xstrdup(path)
                                             : trk_xasprintf("%s/%s", folder, path);
    trk_autofree char *text = NULL;
    size_t len = 0;
    int rc = trk_file_read(full, SECRET_FILE_MAX, &text, &len, err);
    if (rc < 0) {
        return trk_err_wrap(err, "reading secret variables");
    }
    rc = trk_secret_lines_parse(text, path, ret, err);
    explicit_bzero(text, len);
    return rc;
}
