/* YAML: what is accepted is written back to a text that reads the same, every key has a line. */
#include <stdint.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/data/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_auto_t *value = NULL;
    json_auto_t *lines = NULL;
    json_auto_t *again = NULL;
    struct trk_err err = {0};
    struct trk_buf buf;
    if (trk_yaml_parse_lines((const char *)data, size, "input", &value, &lines, &err) < 0) {
        trk_assert(err.code == TRK_INVALID && strncmp(err.text, "input: ", 7) == 0);
        json_auto_t *text = json_string(err.text);
        trk_assert(text != NULL); /* the error can be sent as JSON */
        return 0;
    }
    trk_assert(!json_is_object(value) || json_object_size(value) <= json_object_size(lines));
    trk_buf_init(&buf, 64u << 20);
    trk_assert(trk_yaml_dump(value, &buf) == 0);
    /* indentation may take the text past the reader's limit */
    if (buf.len <= TRK_YAML_BYTES_MAX) {
        if (trk_yaml_parse(buf.data, buf.len, "written", &again, &err) < 0) {
            trk_die("written text is refused: %s\n%s", err.text, buf.data);
        }
        trk_assert(json_equal(value, again));
    }
    trk_buf_fini(&buf);
    return 0;
}
