#include "pub/path.h"

#include <string.h>

#include "libtrack/base/str.h"

/* Where decoding stands in the raw path. */
struct walk {
    const char *at, *end;
    char *scratch;
    const char *fault;
};

/* The decoded character at w->at, which moves on; -1 on a fault. */
static int next_char(struct walk *w)
{
    unsigned char c = (unsigned char)*w->at;
    if (c == '%') {
        int high = w->end - w->at >= 3 ? trk_hex_value(w->at[1]) : -1;
        int low = high >= 0 ? trk_hex_value(w->at[2]) : -1;
        if (low < 0) {
            w->fault = "the path has a broken percent escape";
            return -1;
        }
        c = (unsigned char)(high << 4 | low);
        w->at += 2;
    }
    if (c < 0x20 || c == 0x7F) {
        w->fault = "the path has an encoded control character";
        return -1;
    }
    if (c == '\\') {
        w->fault = "the path has a backslash";
        return -1;
    }
    w->at++;
    return c;
}

static bool is_dots(struct trk_h1_slice s)
{
    return (s.len == 1 && s.at[0] == '.') || (s.len == 2 && s.at[0] == '.' && s.at[1] == '.');
}

/* Decodes the segment after the '/' at w->at. 0 or -400. */
static int next_segment(struct walk *w, struct trk_h1_slice *ret)
{
    char *out = w->scratch;
    bool has_slash = false;
    w->at++;
    while (w->at < w->end && *w->at != '/') {
        int c = next_char(w);
        if (c < 0) {
            return -400;
        }
        has_slash |= c == '/';
        *out++ = (char)c;
    }
    ret->at = w->scratch;
    ret->len = (size_t)(out - w->scratch);
    if (is_dots(*ret)) {
        w->fault = "the path has a dot segment";
        return -400;
    }
    if (has_slash) {
        w->fault = "a job's name or version has an encoded slash";
        return -400;
    }
    w->scratch = out;
    return 0;
}

/* Decodes all that is left, dropping repeated and trailing slashes; dot segments are looked for
 * between decoded slashes. 0 or -400. */
static int decode_rest(struct walk *w, struct trk_h1_slice *ret)
{
    char *out = w->scratch;
    char *segment = out;
    bool more = true;
    while (more) {
        more = w->at < w->end;
        int c = more ? next_char(w) : '/';
        if (c < 0) {
            return -400;
        }
        if (c != '/') {
            *out++ = (char)c;
            continue;
        }
        struct trk_h1_slice s = {segment, (size_t)(out - segment)};
        if (is_dots(s)) {
            w->fault = "the path has a dot segment";
            return -400;
        }
        if (out > w->scratch && out[-1] == '/') {
            continue;
        }
        if (more) {
            *out++ = '/';
            segment = out;
        }
    }
    if (out > w->scratch && out[-1] == '/') {
        out--;
    }
    ret->at = w->scratch;
    ret->len = (size_t)(out - w->scratch);
    return 0;
}

static bool equals(struct trk_h1_slice s, const char *text)
{
    return strlen(text) == s.len && memcmp(s.at, text, s.len) == 0;
}

static enum pub_route_kind leaf_kind(struct trk_h1_slice s)
{
    static const struct {
        const char *name;
        enum pub_route_kind kind;
    } leaves[] = {{"live", PUB_ROUTE_LIVE},
                  {"ready", PUB_ROUTE_READY},
                  {"health", PUB_ROUTE_HEALTH},
                  {"metrics", PUB_ROUTE_METRICS}};
    for (size_t i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++) {
        if (equals(s, leaves[i].name)) {
            return leaves[i].kind;
        }
    }
    return PUB_ROUTE_NONE;
}

static bool has_more(const struct walk *w)
{
    return w->at < w->end && !(w->end - w->at == 1 && *w->at == '/');
}

static int route(struct pub_route *ret, struct walk *w, const char *prefix, const char *target_end)
{
    struct trk_h1_slice s;
    if (next_segment(w, &s) < 0) {
        return -400;
    }
    if (equals(s, prefix) && has_more(w) && next_segment(w, &s) < 0) {
        return -400;
    }
    if (!has_more(w)) {
        ret->kind = leaf_kind(s);
        return 0;
    }
    if (!equals(s, "job") && !equals(s, "fatman")) {
        return 0;
    }
    if (next_segment(w, &ret->job) < 0) {
        return -400;
    }
    if (!has_more(w) || ret->job.len == 0) {
        return 0;
    }
    if (next_segment(w, &ret->version) < 0) {
        return -400;
    }
    if (ret->version.len == 0) {
        return 0;
    }
    ret->rest.at = w->at;
    ret->rest.len = (size_t)(target_end - w->at);
    if (decode_rest(w, &ret->endpoint) < 0) {
        return -400;
    }
    ret->kind = PUB_ROUTE_JOB;
    return 0;
}

int pub_path_route(struct pub_route *ret, struct trk_h1_slice target, const char *prefix,
                   char *scratch, const char **ret_fault)
{
    *ret = (struct pub_route){.kind = PUB_ROUTE_NONE};
    if (target.len == 0 || target.at[0] != '/') {
        return 0;
    }
    const char *query = memchr(target.at, '?', target.len);
    const char *target_end = target.at + target.len;
    struct walk w = {
        .at = target.at, .end = query != NULL ? query : target_end, .scratch = scratch};
    int n = route(ret, &w, prefix, target_end);
    if (n < 0) {
        *ret_fault = w.fault;
    }
    return n;
}
