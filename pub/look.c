/* The reading half of table.h: which job is meant, and who may call it. */
#include <string.h>

#include "libtrack/data/semver.h"
#include "libtrack/data/version.h"
#include "pub/table_impl.h"

static const struct pub_job *find_exact(const struct pub_table *t, const struct pub_family *f,
                                        struct trk_h1_slice version)
{
    uint64_t hash = pub_table_hash(t, 0, version.at, version.len);
    size_t low = 0, high = f->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        bool is_before = f->versions[middle].hash < hash;
        *(is_before ? &low : &high) = is_before ? middle + 1 : middle;
    }
    struct pub_name_key key = {0, version.at, version.len};
    for (; low < f->count && f->versions[low].hash == hash; low++) {
        if (pub_is_text(f->versions[low].job->version, &key)) {
            return f->versions[low].job;
        }
    }
    return NULL;
}

/* The leading numbers of a wildcard: "1.2.x" has two. */
static size_t leading_numbers(const char *pattern, uint64_t out[3])
{
    size_t n = 0;
    while (n < 3 && *pattern >= '0' && *pattern <= '9') {
        uint64_t value = 0;
        for (; *pattern >= '0' && *pattern <= '9'; pattern++) {
            if (__builtin_mul_overflow(value, 10, &value) ||
                __builtin_add_overflow(value, (uint64_t)(*pattern - '0'), &value)) {
                return n; /* no version has it: nothing will match */
            }
        }
        out[n++] = value;
        pattern += *pattern == '.';
    }
    return n;
}

static int compare_numbers(const struct pub_job *job, const uint64_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (job->number[i] != numbers[i]) {
            return job->number[i] > numbers[i] ? -1 : 1;
        }
    }
    return 0;
}

/* The highest that matches: the ranked ones with the pattern's leading numbers lie together. */
static const struct pub_job *find_wildcard(const struct pub_family *f, const char *pattern)
{
    uint64_t numbers[3];
    size_t count = leading_numbers(pattern, numbers);
    size_t low = 0, high = f->ranked_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        bool is_before = compare_numbers(f->ranked[middle], numbers, count) < 0;
        *(is_before ? &low : &high) = is_before ? middle + 1 : middle;
    }
    for (; low < f->ranked_count && compare_numbers(f->ranked[low], numbers, count) == 0; low++) {
        const struct pub_job *job = f->ranked[low];
        struct trk_semver v = {
            .major = job->number[0], .minor = job->number[1], .patch = job->number[2]};
        if (trk_semver_matches(&v, pattern)) {
            return job;
        }
    }
    return NULL;
}

/* What is being deployed for the first time and will match, when nothing else does: the highest. */
static const struct pub_job *find_starting(const struct pub_family *f, const char *pattern)
{
    const struct pub_job *best = NULL;
    for (size_t i = 0; f->has_starting && i < f->count; i++) {
        const struct pub_job *job = f->versions[i].job;
        struct trk_semver v = {
            .major = job->number[0], .minor = job->number[1], .patch = job->number[2]};
        if (job->is_starting && job->is_stable && trk_semver_matches(&v, pattern) &&
            (best == NULL || compare_numbers(best, job->number, 3) > 0)) {
            best = job;
        }
    }
    return best;
}

static const struct pub_job *find_version(const struct pub_table *t, const struct pub_family *f,
                                          struct trk_h1_slice version)
{
    const struct pub_job *job = find_exact(t, f, version);
    char text[PUB_VERSION_SIZE];
    if (job != NULL || version.len >= sizeof(text)) {
        return job;
    }
    memcpy(text, version.at, version.len);
    text[version.len] = '\0';
    if (strcmp(text, "latest") == 0) {
        return f->ranked_count > 0 ? f->ranked[0] : find_starting(f, "x");
    }
    if (!trk_semver_is_wildcard(text)) {
        return NULL;
    }
    job = find_wildcard(f, text);
    return job != NULL ? job : find_starting(f, text);
}

static bool is_public(const struct pub_job *job, const char *path)
{
    if (trk_endpoint_is_always_public(path)) {
        return true;
    }
    const char *prefix = job->publics;
    for (size_t i = 0; i < job->public_count; i++) {
        if (trk_endpoint_is_below(path, prefix)) {
            return true;
        }
        prefix += strlen(prefix) + 1;
    }
    return false;
}

/* Does one of the grants with this key cover the job's path? They are sorted by key. */
static bool has_grant(const struct pub_subject *s, const struct pub_name *key,
                      const struct pub_job *job, const char *path)
{
    size_t low = 0, high = s->grant_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        bool is_before = (uintptr_t)s->grants[middle].key < (uintptr_t)key;
        *(is_before ? &low : &high) = is_before ? middle + 1 : middle;
    }
    for (; low < s->grant_count && s->grants[low].key == key; low++) {
        const struct pub_grant *g = &s->grants[low];
        if ((g->family == NULL || g->family == job->family) &&
            (g->endpoint == NULL || strcmp(g->endpoint, path) == 0)) {
            return true;
        }
    }
    return false;
}

/* `digest`: of the token; NULL: there is none. */
static enum pub_verdict judge_caller(const struct pub_table *t, const struct pub_question *q,
                                     const unsigned char *digest, const char *path,
                                     struct pub_finding *ret)
{
    if (digest == NULL) {
        return PUB_NO_TOKEN;
    }
    ret->token = pub_map_find(&t->tokens, pub_digest_hash(digest), digest);
    if (ret->token == NULL) {
        return PUB_UNKNOWN_TOKEN;
    }
    ret->subject = pub_token_subject(ret->token);
    if (ret->token->ends_s != 0 && q->now_s >= ret->token->ends_s) {
        return PUB_ENDED_TOKEN;
    }
    if (!ret->subject->is_active) {
        return PUB_INACTIVE;
    }
    bool may = has_grant(ret->subject, ret->job->id, ret->job, path) ||
               has_grant(ret->subject, ret->job->family, ret->job, path) ||
               has_grant(ret->subject, NULL, ret->job, path);
    return may ? PUB_MAY_CALL : PUB_NOT_ALLOWED;
}

bool pub_table_has_picture(const struct pub_table *t)
{
    return atomic_load_explicit(&t->has_picture, memory_order_acquire);
}

enum pub_verdict pub_table_decide(const struct pub_table *t, const struct pub_question *q,
                                  struct pub_finding *ret)
{
    *ret = (struct pub_finding){0};
    if (!pub_table_has_picture(t)) {
        return PUB_KNOWS_NOTHING;
    }
    if (atomic_load_explicit(&t->is_maintenance, memory_order_relaxed)) {
        return PUB_MAINTENANCE;
    }
    /* In a large table nothing is in the processor's cache: the job's and the token's places are
     * fetched side by side, behind the work on the digest. */
    struct pub_name_key key = {PUB_FAMILY_NAME, q->job.at, q->job.len};
    uint64_t family_hash = pub_table_hash(t, PUB_FAMILY_NAME, q->job.at, q->job.len);
    pub_map_fetch_place(&t->families, family_hash);
    unsigned char bytes[PUB_DIGEST_SIZE];
    const unsigned char *digest = q->digest;
    if (digest == NULL && q->token.len > 0) {
        pub_digest(q->token, bytes);
        digest = bytes;
    }
    if (digest != NULL) {
        pub_map_fetch_place(&t->tokens, pub_digest_hash(digest));
    }
    pub_map_fetch_entry(&t->families, family_hash);
    const struct pub_family *family = pub_map_find(&t->families, family_hash, &key);
    if (family == NULL) {
        return PUB_NO_FAMILY;
    }
    if (digest != NULL) {
        pub_map_fetch_entry(&t->tokens, pub_digest_hash(digest));
    }
    ret->version_count = family->count;
    ret->job = find_version(t, family, q->version);
    if (ret->job == NULL) {
        return PUB_NO_VERSION;
    }
    const char *path = q->endpoint[0] != '\0' ? q->endpoint : "/";
    return is_public(ret->job, path) ? PUB_MAY_CALL : judge_caller(t, q, digest, path, ret);
}
