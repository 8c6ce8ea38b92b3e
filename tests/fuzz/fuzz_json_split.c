/* Splitting a string off JSON: the size of the pieces does not matter, and what JSON says is
 * neither lost nor made up. */
#include <stdint.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/data/json_split.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct parts {
    struct trk_buf text, value;
    bool is_found;
    int rc;
};

static int add_text(void *ctx, const char *bytes, size_t len, struct trk_err *err)
{
    (void)err;
    return trk_buf_add(&((struct parts *)ctx)->text, bytes, len);
}

static int add_value(void *ctx, const char *bytes, size_t len, struct trk_err *err)
{
    (void)err;
    return trk_buf_add(&((struct parts *)ctx)->value, bytes, len);
}

static void split(const char *bytes, size_t len, size_t piece, struct parts *ret)
{
    struct trk_json_split split = {
        .member = "file", .on_text = add_text, .on_value = add_value, .ctx = ret};
    struct trk_err err = {0};
    *ret = (struct parts){0};
    trk_buf_init(&ret->text, len + 1);
    trk_buf_init(&ret->value, len + 1);
    for (size_t at = 0; ret->rc == 0 && at < len; at += piece) {
        ret->rc = trk_json_split_feed(&split, bytes + at, len - at < piece ? len - at : piece,
                                      &err);
    }
    ret->is_found = split.is_found;
}

static void parts_fini(struct parts *parts)
{
    trk_buf_fini(&parts->text);
    trk_buf_fini(&parts->value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *)data;
    struct parts whole, one;
    split(bytes, size, size + 1, &whole);
    split(bytes, size, 1, &one);
    trk_assert(whole.rc == one.rc && whole.is_found == one.is_found);
    trk_assert(whole.rc < 0 ||
               (whole.text.len == one.text.len && whole.value.len == one.value.len));
    json_auto_t *json = NULL;
    if (whole.rc == 0 && trk_json_parse(bytes, size, &json, NULL) == 0) {
        json_auto_t *left = NULL;
        trk_assert(trk_json_parse(whole.text.data, whole.text.len, &left, NULL) == 0);
        if (whole.is_found) {
            trk_assert(json_object_set_new(left, "file",
                                           json_stringn(whole.value.data, whole.value.len)) == 0);
        }
        trk_assert(json_equal(json, left));
    }
    parts_fini(&whole);
    parts_fini(&one);
    return 0;
}
