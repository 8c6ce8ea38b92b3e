/* JSON: what is accepted is written back to a text that reads the same; NUL and depth stay out. */
#include <stdint.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_value(const json_t *value, int depth)
{
    size_t index;
    json_t *item;
    const char *key;
    trk_assert(depth <= TRK_JSON_DEPTH_MAX + 1);
    if (json_is_string(value)) {
        trk_assert(strlen(json_string_value(value)) == json_string_length(value));
    }
    json_array_foreach (value, index, item) {
        check_value(item, depth + 1);
    }
    json_object_foreach ((json_t *)(uintptr_t)value, key, item) {
        check_value(item, depth + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_auto_t *value = NULL;
    json_auto_t *again = NULL;
    struct trk_err err = {0};
    if (trk_json_parse((const char *)data, size, &value, &err) < 0) {
        trk_assert(err.code == TRK_INVALID && err.text[0] != '\0' && value == NULL);
        json_auto_t *text = json_string(err.text);
        trk_assert(text != NULL); /* the error can be sent as JSON */
        return 0;
    }
    check_value(value, 1);
    trk_autofree char *text = trk_json_text(value);
    if (trk_json_parse(text, strlen(text), &again, &err) < 0) {
        trk_die("written text is refused: %s", err.text);
    }
    trk_assert(json_equal(value, again));
    return 0;
}
