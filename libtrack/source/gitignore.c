#include "libtrack/source/gitignore.h"

#include <stddef.h>

#include "libtrack/base/mem.h"
#include "libtrack/base/str.h"

struct rule {
    char *folder;  /* of its .gitignore: "" or "a/b" */
    char *pattern; /* without '!', leading and trailing '/' */
    bool is_negated, is_anchored, is_folder_only;
};
struct trk_gitignore {
    struct rule *list;
    size_t count, size;
};

struct trk_gitignore *trk_gitignore_new(void)
{
    return trk_xcalloc(1, sizeof(struct trk_gitignore));
}

void trk_gitignore_free(struct trk_gitignore *rules)
{
    if (rules == NULL) {
        return;
    }
    for (size_t i = 0; i < rules->count; i++) {
        free(rules->list[i].folder);
        free(rules->list[i].pattern);
    }
    free(rules->list);
    free(rules);
}

/* Trailing blanks count only behind a backslash. */
static size_t trimmed_length(const char *line, size_t len)
{
    while (len > 0 && line[len - 1] == '\r') {
        len--;
    }
    while (len > 0 && (line[len - 1] == ' ' || line[len - 1] == '\t') &&
           !(len > 1 && line[len - 2] == '\\')) {
        len--;
    }
    return len;
}

static void add_line(struct trk_gitignore *rules, const char *folder, const char *line, size_t len)
{
    struct rule rule = {0};
    len = trimmed_length(line, len);
    if (len == 0 || line[0] == '#') {
        return;
    }
    if (line[0] == '!') {
        rule.is_negated = true;
        line++;
        len--;
    }
    if (len > 0 && line[len - 1] == '/') {
        rule.is_folder_only = true;
        len--;
    }
    rule.is_anchored = memchr(line, '/', len) != NULL;
    if (len > 0 && line[0] == '/') {
        line++;
        len--;
    }
    if (len == 0) {
        return;
    }
    rule.folder = trk_xstrdup(folder);
    rule.pattern = trk_xstrndup(line, len);
    if (rules->count == rules->size) {
        rules->size = rules->size == 0 ? 16 : rules->size * 2;
        rules->list = trk_xrealloc(rules->list, rules->size * sizeof(*rules->list));
    }
    rules->list[rules->count++] = rule;
}

void trk_gitignore_add_lines(struct trk_gitignore *rules, const char *folder, const char *lines)
{
    while (*lines != '\0') {
        size_t len = strcspn(lines, "\n");
        add_line(rules, folder, lines, len);
        lines += len + (lines[len] == '\n' ? 1 : 0);
    }
}

/* "[a-z]" at *pattern: does it hold `c`? Moves *pattern behind it. An open bracket without its end
 * stands for itself. */
static bool match_set(const char **pattern, char c)
{
    const char *p = *pattern + 1;
    bool is_negated = *p == '!' || *p == '^';
    if (is_negated) {
        p++;
    }
    bool found = false;
    for (bool first = true; *p != '\0' && (first || *p != ']'); first = false) {
        char low = *p == '\\' && p[1] != '\0' ? *++p : *p;
        char high = low;
        p++;
        if (*p == '-' && p[1] != '\0' && p[1] != ']') {
            p++;
            high = *p == '\\' && p[1] != '\0' ? *++p : *p;
            p++;
        }
        found = found ||
                ((unsigned char)c >= (unsigned char)low && (unsigned char)c <= (unsigned char)high);
    }
    if (*p != ']') {
        *pattern += 1;
        return c == '[';
    }
    *pattern = p + 1;
    return found != is_negated;
}

static bool is_double_star(const char *pattern, const char *start)
{
    return pattern[0] == '*' && pattern[1] == '*' && (pattern == start || pattern[-1] == '/') &&
           (pattern[2] == '/' || pattern[2] == '\0');
}

/* One step of a '*'-less comparison; false: they differ here. */
static bool match_one(const char **pattern, const char **text)
{
    if (**text == '\0') {
        return false;
    }
    if (**pattern == '?') {
        *pattern += 1;
        return *(*text)++ != '/';
    }
    if (**pattern == '[' && **text != '/') {
        return match_set(pattern, *(*text)++);
    }
    if (**pattern == '\\' && (*pattern)[1] != '\0') {
        *pattern += 1;
    }
    if (**pattern == '\0' || **pattern != **text) {
        return false;
    }
    *pattern += 1;
    *text += 1;
    return true;
}

/* Greedy with one point of return for '*' and one for '**': linear in space, at worst the product
 * of the lengths in time for each of them. */
bool trk_gitignore_match(const char *pattern, const char *text)
{
    const char *start = pattern;
    const char *star = NULL, *star_text = NULL, *deep = NULL, *deep_text = NULL;
    for (;;) {
        if (is_double_star(pattern, start)) {
            if (pattern[2] == '\0') {
                return *text != '\0';
            }
            pattern += 3;
            deep = pattern;
            deep_text = text;
            star = NULL;
            continue;
        }
        if (*pattern == '*') {
            while (*pattern == '*') {
                pattern++;
            }
            star = pattern;
            star_text = text;
            continue;
        }
        if (*pattern == '\0' && *text == '\0') {
            return true;
        }
        if (*pattern != '\0' && match_one(&pattern, &text)) {
            continue;
        }
        if (star != NULL && *star_text != '\0' && *star_text != '/') {
            pattern = star;
            text = ++star_text;
            continue;
        }
        /* The next folder for the double star. */
        const char *slash = deep != NULL ? strchr(deep_text, '/') : NULL;
        if (slash == NULL) {
            return false;
        }
        pattern = deep;
        text = deep_text = slash + 1;
        star = NULL;
    }
}

static bool rule_matches(const struct rule *rule, const char *path, bool is_folder)
{
    if (rule->is_folder_only && !is_folder) {
        return false;
    }
    size_t len = strlen(rule->folder);
    if (len > 0) {
        if (strncmp(path, rule->folder, len) != 0 || path[len] != '/') {
            return false;
        }
        path += len + 1;
    }
    if (!rule->is_anchored) {
        const char *slash = strrchr(path, '/');
        path = slash != NULL ? slash + 1 : path;
    }
    return trk_gitignore_match(rule->pattern, path);
}

/* No rule brings these back. */
static bool is_always_ignored(const char *path)
{
    static const char *const names[] = {".git", ".gitignore", "__pycache__"};
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    for (size_t i = 0; i < TRK_COUNT(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return trk_str_has_suffix(name, ".pyc") || trk_str_has_suffix(name, ".zip");
}

bool trk_gitignore_is_ignored(const struct trk_gitignore *rules, const char *path, bool is_folder)
{
    if (is_always_ignored(path)) {
        return true;
    }
    /* Deeper files are added later by a walk that goes down, so the last match decides. */
    for (size_t i = rules->count; i > 0; i--) {
        if (rule_matches(&rules->list[i - 1], path, is_folder)) {
            return !rules->list[i - 1].is_negated;
        }
    }
    return false;
}
