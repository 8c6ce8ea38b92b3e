#include "pub/record.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"

#define LIST_MAX 65535 /* public paths or replicas of a job */

/* -- jobs -- */

/* Texts of an array's strings, or of the member `key` of its objects. *ret owned; the texts are
 * borrowed from the value. */
static int read_texts(const json_t *array, const char *key, const char ***ret, size_t *ret_count,
                      struct trk_err *err)
{
    size_t count = json_array_size(array);
    if (count > LIST_MAX) {
        return trk_err_set(err, TRK_SCHEMA, "a job with %zu replicas or paths", count);
    }
    trk_autofree const char **texts = trk_xcalloc(count + 1, sizeof(*texts));
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(array, i);
        texts[i] = json_string_value(key != NULL ? json_object_get(item, key) : item);
        if (texts[i] == NULL) {
            return trk_err_set(err, TRK_SCHEMA, "a job's replica or path is no text");
        }
    }
    *ret = TRK_STEAL(texts);
    *ret_count = count;
    return 0;
}

static int apply_job(struct pub_table *t, const json_t *value, struct trk_err *err)
{
    struct pub_job_record r = {.secret = trk_json_string_or(value, "secret", NULL)};
    trk_autofree const char **publics = NULL;
    trk_autofree const char **replicas = NULL;
    if (trk_json_string(value, "id", &r.id, err) < 0 ||
        trk_json_string(value, "name", &r.name, err) < 0 ||
        trk_json_string(value, "version", &r.version, err) < 0 ||
        trk_json_string(value, "status", &r.status, err) < 0 ||
        read_texts(json_object_get(value, "public"), NULL, &publics, &r.public_count, err) < 0 ||
        read_texts(json_object_get(value, "replicas"), "address", &replicas, &r.replica_count,
                   err) < 0) {
        return err->code;
    }
    r.publics = publics;
    r.replicas = replicas;
    pub_table_put_job(t, &r);
    return 0;
}

/* -- subjects -- */

static int read_digest(const char *hex, unsigned char *out, struct trk_err *err)
{
    size_t len = 0;
    if (strlen(hex) != 2 * (size_t)PUB_DIGEST_SIZE ||
        sodium_hex2bin(out, PUB_DIGEST_SIZE, hex, strlen(hex), NULL, &len, NULL) != 0 ||
        len != PUB_DIGEST_SIZE) {
        return trk_err_set(err, TRK_SCHEMA, "a token's digest is not 64 hexadecimal digits");
    }
    return 0;
}

static int read_tokens(const json_t *array, struct pub_token_record *tokens, struct trk_err *err)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);
        const char *hex;
        if (trk_json_string(item, "d", &hex, err) < 0 ||
            read_digest(hex, tokens[i].digest, err) < 0) {
            return err->code;
        }
        const json_t *ends = json_object_get(item, "e");
        if (ends != NULL && !json_is_null(ends) && !json_is_integer(ends)) {
            return trk_err_set(err, TRK_SCHEMA, "a token's end is no number");
        }
        int64_t ends_s = json_is_integer(ends) ? json_integer_value(ends) : 0;
        tokens[i].ends_s = json_is_integer(ends) && ends_s <= 0 ? 1 : ends_s;
    }
    return 0;
}

/* A member that widens the grant when it is null must be there as it should be. */
static int read_part(const json_t *grant, const char *key, const char **ret, struct trk_err *err)
{
    const json_t *value = json_object_get(grant, key);
    *ret = json_string_value(value);
    return *ret != NULL || json_is_null(value)
               ? 0
               : trk_err_set(err, TRK_SCHEMA, "a grant's %s is neither text nor null", key);
}

static int read_grants(const json_t *array, struct pub_grant_record *grants, struct trk_err *err)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);
        if (read_part(item, "family", &grants[i].family, err) < 0 ||
            read_part(item, "job", &grants[i].job, err) < 0 ||
            read_part(item, "endpoint", &grants[i].endpoint, err) < 0) {
            return err->code;
        }
    }
    return 0;
}

static int apply_subject(struct pub_table *t, const json_t *value, struct trk_err *err)
{
    const json_t *tokens = json_object_get(value, "tokens");
    const json_t *grants = json_object_get(value, "grants");
    struct pub_subject_record r = {.is_active = json_is_true(json_object_get(value, "active")),
                                   .type = trk_json_string_or(value, "type", ""),
                                   .token_count = json_array_size(tokens),
                                   .grant_count = json_array_size(grants)};
    trk_autofree struct pub_token_record *token_list = trk_xcalloc(r.token_count + 1,
                                                                   sizeof(*token_list));
    trk_autofree struct pub_grant_record *grant_list = trk_xcalloc(r.grant_count + 1,
                                                                   sizeof(*grant_list));
    if (trk_json_string(value, "id", &r.id, err) < 0 ||
        trk_json_string(value, "name", &r.caller, err) < 0 ||
        read_tokens(tokens, token_list, err) < 0 || read_grants(grants, grant_list, err) < 0) {
        return err->code;
    }
    r.tokens = token_list;
    r.grants = grant_list;
    pub_table_put_subject(t, &r);
    return 0;
}

/* -- events -- */

static int remove_job(struct pub_table *t, const json_t *value, struct trk_err *err)
{
    const char *id;
    if (trk_json_string(value, "id", &id, err) < 0) {
        return err->code;
    }
    pub_table_remove_job(t, id);
    return 0;
}

static int remove_subject(struct pub_table *t, const json_t *value, struct trk_err *err)
{
    const char *id;
    if (trk_json_string(value, "id", &id, err) < 0) {
        return err->code;
    }
    pub_table_remove_subject(t, id);
    return 0;
}

int pub_record_apply(struct pub_table *t, const char *event, const char *data, struct trk_err *err)
{
    static const struct {
        const char *event;
        int (*apply)(struct pub_table *t, const json_t *value, struct trk_err *err);
    } kinds[] = {{"job", apply_job},
                 {"subject", apply_subject},
                 {"job_removed", remove_job},
                 {"subject_removed", remove_subject}};
    size_t kind = 0;
    while (kind < TRK_COUNT(kinds) && strcmp(kinds[kind].event, event) != 0) {
        kind++;
    }
    if (kind == TRK_COUNT(kinds)) {
        return 0;
    }
    json_auto_t *records = NULL;
    if (trk_json_parse(data, strlen(data), &records, err) < 0) {
        return trk_err_wrap(err, "event %s", event);
    }
    if (!json_is_array(records)) {
        return trk_err_set(err, TRK_SCHEMA, "event %s: not an array", event);
    }
    for (size_t i = 0; i < json_array_size(records); i++) {
        if (kinds[kind].apply(t, json_array_get(records, i), err) < 0) {
            return trk_err_wrap(err, "event %s", event);
        }
    }
    return 1;
}

/* -- writing -- */

static void write_text(struct trk_buf *buf, const char *text)
{
    static const char hex[] = "0123456789abcdef";
    if (text == NULL) {
        (void)trk_buf_adds(buf, "null");
        return;
    }
    (void)trk_buf_addc(buf, '"');
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            (void)trk_buf_addc(buf, '\\');
        }
        if (c < 0x20) {
            char escaped[] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15], '\0'};
            (void)trk_buf_adds(buf, escaped);
        } else {
            (void)trk_buf_addc(buf, (char)c);
        }
    }
    (void)trk_buf_addc(buf, '"');
}

static void write_member(struct trk_buf *buf, const char *before, const char *text)
{
    (void)trk_buf_adds(buf, before);
    write_text(buf, text);
}

void pub_record_write_job(const struct pub_job *job, struct trk_buf *buf)
{
    write_member(buf, "{\"id\":", job->id->text);
    write_member(buf, ",\"name\":", job->family->text);
    write_member(buf, ",\"version\":", job->version);
    write_member(buf, ",\"status\":", job->status);
    (void)trk_buf_adds(buf, ",\"public\":[");
    const char *text = job->publics;
    for (size_t i = 0; i < job->public_count; i++, text += strlen(text) + 1) {
        write_member(buf, i > 0 ? "," : "", text);
    }
    (void)trk_buf_adds(buf, "],\"replicas\":[");
    text = job->replicas;
    for (size_t i = 0; i < job->replica_count; i++, text += strlen(text) + 1) {
        write_member(buf, i > 0 ? ",{\"address\":" : "{\"address\":", text);
        (void)trk_buf_addc(buf, '}');
    }
    write_member(buf, "],\"secret\":", job->secret);
    (void)trk_buf_addc(buf, '}');
}

void pub_record_write_subject(const struct pub_subject *s, struct trk_buf *buf)
{
    write_member(buf, "{\"id\":", s->id->text);
    write_member(buf, ",\"type\":", s->type);
    write_member(buf, ",\"name\":", s->caller);
    (void)trk_buf_addf(buf, ",\"active\":%s,\"tokens\":[", s->is_active ? "true" : "false");
    for (uint32_t i = 0; i < s->token_count; i++) {
        char hex[2 * PUB_DIGEST_SIZE + 1];
        (void)sodium_bin2hex(hex, sizeof(hex), s->tokens[i].digest, PUB_DIGEST_SIZE);
        (void)trk_buf_addf(buf, "%s{\"d\":\"%s\"", i > 0 ? "," : "", hex);
        if (s->tokens[i].ends_s != 0) {
            (void)trk_buf_addf(buf, ",\"e\":%lld", (long long)s->tokens[i].ends_s);
        }
        (void)trk_buf_addc(buf, '}');
    }
    (void)trk_buf_adds(buf, "],\"grants\":[");
    for (uint32_t i = 0; i < s->grant_count; i++) {
        const struct pub_grant *g = &s->grants[i];
        write_member(buf, i > 0 ? ",{\"family\":" : "{\"family\":",
                     g->family != NULL ? g->family->text : NULL);
        write_member(buf, ",\"job\":", g->key != g->family ? g->key->text : NULL);
        write_member(buf, ",\"endpoint\":", g->endpoint);
        (void)trk_buf_addc(buf, '}');
    }
    (void)trk_buf_adds(buf, "]}");
}
