#include "pub/report.h"

#include <sodium.h>

#include "libtrack/base/mem.h"

static void add_token(json_t *tokens, const struct pub_token *token)
{
    uint32_t last_s = atomic_exchange(&((struct pub_token *)(uintptr_t)token)->last_s, 0);
    char hex[2 * PUB_DIGEST_SIZE + 1];
    (void)sodium_bin2hex(hex, sizeof(hex), token->digest, PUB_DIGEST_SIZE);
    (void)json_array_append_new(tokens, json_pack("{s:s,s:I}", "d", hex, "t", (json_int_t)last_s));
}

static void add_job(json_t *jobs, const struct pub_job *job)
{
    json_int_t calls = atomic_exchange(&job->id->calls, 0);
    json_int_t last_s = atomic_load(&job->id->last_s);
    (void)json_array_append_new(jobs,
                                json_pack("{s:s,s:s,s:I,s:I}", "name", job->family->text, "version",
                                          job->version, "t", last_s, "calls", calls));
}

static bool has_room(const json_t *list, bool *ret_more)
{
    *ret_more |= json_array_size(list) >= PUB_REPORT_ITEMS_MAX;
    return json_array_size(list) < PUB_REPORT_ITEMS_MAX;
}

json_t *pub_report_take(const struct pub_table *table, bool *ret_more)
{
    const struct pub_job *job;
    const struct pub_subject *subject;
    json_t *tokens = json_array();
    json_t *jobs = json_array();
    *ret_more = false;
    for (size_t cursor = 0; pub_table_next(table, &cursor, &job, &subject);) {
        if (job != NULL && atomic_load(&job->id->calls) > 0 && has_room(jobs, ret_more)) {
            add_job(jobs, job);
        }
        for (uint32_t i = 0; subject != NULL && i < subject->token_count; i++) {
            if (atomic_load(&subject->tokens[i].last_s) != 0 && has_room(tokens, ret_more)) {
                add_token(tokens, &subject->tokens[i]);
            }
        }
    }
    if (json_array_size(tokens) + json_array_size(jobs) == 0) {
        json_decref(tokens);
        json_decref(jobs);
        return NULL;
    }
    return json_pack("{s:o,s:o}", "tokens", tokens, "jobs", jobs);
}
