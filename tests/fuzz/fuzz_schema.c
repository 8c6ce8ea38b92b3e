/* Schema: any JSON value against a schema with every keyword; the answer agrees with the faults,
 * the same value has the same faults, and they can be sent as JSON. */
#include <stdint.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/data/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char schema_text[] =
    "{\"type\":[\"object\",\"array\",\"string\",\"number\"],"
    "\"required\":[\"name\"],\"additionalProperties\":false,\"maxProperties\":8,"
    "\"pattern\":\"^[a-z]+(-[a-z]+)*$\",\"minLength\":1,\"maxLength\":40,"
    "\"minimum\":-5,\"maximum\":5,\"exclusiveMinimum\":-5,"
    "\"items\":{\"$ref\":\"#\"},\"minItems\":1,\"maxItems\":9,"
    "\"x-elsewhere\":{\"remote\":\"git\"},"
    "\"properties\":{"
    "\"name\":{\"type\":\"string\",\"format\":\"password\"},"
    "\"kind\":{\"enum\":[\"a\",1,null]},"
    "\"one\":{\"oneOf\":[{\"type\":\"string\"},{\"const\":3},{\"type\":\"integer\"}]},"
    "\"any\":{\"anyOf\":[{\"$ref\":\"#/$defs/deep\"},{\"type\":\"null\"}]},"
    "\"env\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"}}},"
    "\"$defs\":{\"deep\":{\"type\":\"object\",\"properties\":{\"next\":{\"$ref\":\"#/$defs/"
    "deep\"}},"
    "\"additionalProperties\":false}}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct trk_schema *schema;
    static struct trk_faults faults;
    static struct trk_faults again;
    if (schema == NULL) {
        schema = trk_schema_new(schema_text);
    }
    json_auto_t *value = NULL;
    struct trk_err err = {0};
    if (trk_json_parse((const char *)data, size, &value, &err) < 0) {
        return 0;
    }
    memset(&faults, 0, sizeof(faults));
    memset(&again, 0, sizeof(again));
    int rc = trk_schema_check(schema, value, &faults);
    trk_assert((rc == 0) == (faults.count == 0));
    trk_assert(trk_schema_check(schema, value, &again) == rc);
    trk_assert(memcmp(&faults, &again, sizeof(faults)) == 0);
    if (rc < 0) {
        trk_assert(trk_faults_to_err(&faults, TRK_SCHEMA, "input", &err) == TRK_SCHEMA);
        json_auto_t *text = json_string(err.text);
        trk_assert(text != NULL);
    }
    return 0;
}
