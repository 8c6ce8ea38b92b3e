#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/data/schema.h"

/* Copies a text; what does not fit ends on a character's boundary. */
static void copy_cut(char *out, size_t size, const char *text)
{
    size_t len = strlen(text);
    if (len >= size) {
        len = size - 1;
        while (len > 0 && ((unsigned char)text[len] & 0xC0) == 0x80) {
            len--;
        }
    }
    memcpy(out, text, len);
    out[len] = '\0';
}

void trk_faults_add(struct trk_faults *faults, const char *path, const char *keyword,
                    const char *fmt, ...)
{
    size_t at = faults->count++;
    if (at >= TRK_FAULTS_MAX) {
        return;
    }
    char text[sizeof(faults->list[0].text) * 2];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    struct trk_fault *fault = &faults->list[at];
    *fault = (struct trk_fault){0};
    copy_cut(fault->path, sizeof(fault->path), path);
    copy_cut(fault->keyword, sizeof(fault->keyword), keyword);
    copy_cut(fault->text, sizeof(fault->text), text);
}

static size_t kept(const struct trk_faults *faults)
{
    return faults->count < TRK_FAULTS_MAX ? faults->count : TRK_FAULTS_MAX;
}

/* "a.b[2]" -> "a.b" -> "a" -> "". */
static void cut_last_step(char *path)
{
    char *dot = strrchr(path, '.');
    char *bracket = strrchr(path, '[');
    char *last = dot > bracket ? dot : bracket;
    if (last != NULL) {
        *last = '\0';
    } else {
        path[0] = '\0';
    }
}

/* In the document's order; what has no line comes first. Stable. */
static void sort_by_line(struct trk_faults *faults)
{
    for (size_t i = 1; i < kept(faults); i++) {
        struct trk_fault fault = faults->list[i];
        size_t at = i;
        for (; at > 0 && faults->list[at - 1].line > fault.line; at--) {
            faults->list[at] = faults->list[at - 1];
        }
        faults->list[at] = fault;
    }
}

void trk_faults_set_lines(struct trk_faults *faults, const json_t *lines)
{
    for (size_t i = 0; i < kept(faults); i++) {
        struct trk_fault *fault = &faults->list[i];
        char path[sizeof(fault->path)];
        memcpy(path, fault->path, sizeof(path));
        while (fault->line == 0 && path[0] != '\0') {
            fault->line = (unsigned)trk_json_int_or(lines, path, 0);
            cut_last_step(path);
        }
    }
    sort_by_line(faults);
}

int trk_faults_to_err(const struct trk_faults *faults, enum trk_code code, const char *what,
                      struct trk_err *err)
{
    struct trk_buf buf;
    trk_buf_init(&buf, TRK_ERR_TEXT_MAX - 64);
    bool is_list = what != NULL && faults->count != 1;
    if (what != NULL) {
        (void)trk_buf_addf(&buf, "%s:%s", what, is_list ? "" : " ");
    }
    size_t shown = 0;
    for (; shown < kept(faults) && !buf.failed; shown++) {
        const struct trk_fault *fault = &faults->list[shown];
        size_t before = buf.len;
        (void)trk_buf_addf(&buf, "%s%s%s%s",
                           is_list     ? "\n  "
                           : shown > 0 ? "\n"
                                       : "",
                           fault->path, fault->path[0] != '\0' ? ": " : "", fault->text);
        if (fault->line > 0) {
            (void)trk_buf_addf(&buf, " (line %u)", fault->line);
        }
        if (buf.failed) { /* whole lines only */
            buf.len = before;
            break;
        }
    }
    size_t rest = faults->count - shown;
    (void)trk_err_set(err, code, "%.*s", (int)buf.len, buf.data);
    if (rest > 0) {
        (void)trk_err_append(err, "\n%sand %zu more", is_list ? "  " : "", rest);
    }
    trk_buf_fini(&buf);
    return code;
}
