#include "pub/table.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/data/semver.h"
#include "libtrack/data/version.h"
#include "pub/table_impl.h"

/* -- names -- */

uint64_t pub_table_hash(const struct pub_table *t, char kind, const char *text, size_t len)
{
    uint64_t hash;
    (void)crypto_shorthash((unsigned char *)&hash, (const unsigned char *)text, len, t->key);
    return hash ^ (uint64_t)(unsigned char)kind * UINT64_C(0x9E3779B97F4A7C15);
}

static uint64_t hash_name(const void *ctx, const void *entry)
{
    const struct pub_name *name = entry;
    return pub_table_hash(ctx, name->kind, name->text, strlen(name->text));
}

static bool is_name(const void *entry, const void *key)
{
    const struct pub_name *name = entry;
    const struct pub_name_key *wanted = key;
    return name->kind == wanted->kind && pub_is_text(name->text, wanted);
}

static struct pub_name *find_name(struct pub_table *t, char kind, const char *text)
{
    struct pub_name_key key = {kind, text, strlen(text)};
    return pub_map_find(&t->names, pub_table_hash(t, kind, text, key.len), &key);
}

static struct pub_name *ref_name(struct pub_table *t, char kind, const char *text)
{
    struct pub_name_key key = {kind, text, strlen(text)};
    uint64_t hash = pub_table_hash(t, kind, text, key.len);
    struct pub_name *name = pub_map_find(&t->names, hash, &key);
    if (name == NULL) {
        name = trk_xcalloc(1, sizeof(*name) + key.len + 1);
        name->kind = kind;
        memcpy(name->text, text, key.len + 1);
        (void)pub_map_put(&t->names, t->readers, hash, &key, name);
    }
    name->refs++;
    return name;
}

static void unref_name(struct pub_table *t, const struct pub_name *shared)
{
    struct pub_name *name = (struct pub_name *)(uintptr_t)shared;
    if (name == NULL || --name->refs > 0) {
        return;
    }
    struct pub_name_key key = {name->kind, name->text, strlen(name->text)};
    (void)pub_map_remove(&t->names, hash_name(t, name), &key);
    pub_retire(t->readers, name, free);
}

/* -- families -- */

static uint64_t hash_family(const void *ctx, const void *entry)
{
    return hash_name(ctx, ((const struct pub_family *)entry)->name);
}

static bool is_family(const void *entry, const void *key)
{
    return pub_is_text(((const struct pub_family *)entry)->text, key);
}

static void mark_dirty(struct pub_table *t, struct pub_family_list *family)
{
    if (!family->is_dirty) {
        family->is_dirty = true;
        family->next_dirty = t->dirty;
        t->dirty = family;
    }
}

static struct pub_family_list *ref_family(struct pub_table *t, const char *text)
{
    struct pub_name *name = ref_name(t, PUB_FAMILY_NAME, text);
    if (name->thing == NULL) {
        struct pub_family_list *family = trk_xcalloc(1, sizeof(*family));
        family->name = name;
        name->refs++; /* the list's own, until it is published as empty */
        name->thing = family;
    }
    return name->thing;
}

static void add_to_family(struct pub_family_list *family, struct pub_job *job)
{
    if (family->count == family->size) {
        family->size = family->size == 0 ? 1 : family->size * 2;
        family->jobs = trk_xrealloc(family->jobs, family->size * sizeof(family->jobs[0]));
    }
    family->jobs[family->count++] = job;
}

static void take_from_family(struct pub_family_list *family, const struct pub_job *job)
{
    size_t i = family->count;
    while (i-- > 0) {
        if (family->jobs[i] == job) {
            family->jobs[i] = family->jobs[--family->count];
            return;
        }
    }
}

static int compare_texts(const void *a, const void *b)
{
    const struct pub_job *x = *(struct pub_job *const *)a;
    const struct pub_job *y = *(struct pub_job *const *)b;
    int order = strcmp(x->version, y->version);
    return order != 0 ? order : x->serial < y->serial ? -1 : 1;
}

static int compare_ranks(const void *a, const void *b)
{
    const struct pub_job *x = *(const struct pub_job *const *)a;
    const struct pub_job *y = *(const struct pub_job *const *)b;
    for (int i = 0; i < 3; i++) {
        if (x->number[i] != y->number[i]) {
            return x->number[i] > y->number[i] ? -1 : 1;
        }
    }
    return strcmp(x->version, y->version);
}

static int compare_hashes(const void *a, const void *b)
{
    uint64_t x = ((const struct pub_version *)a)->hash;
    uint64_t y = ((const struct pub_version *)b)->hash;
    return x < y ? -1 : x > y;
}

static struct pub_family *build_family(const struct pub_table *t,
                                       const struct pub_family_list *list)
{
    size_t n = list->count;
    size_t ranked = 0;
    for (size_t i = 0; i < n; i++) {
        ranked += list->jobs[i]->is_live && list->jobs[i]->is_stable;
    }
    size_t text_size = strlen(list->name->text) + 1;
    struct pub_family *f = trk_xcalloc(1, sizeof(*f) + n * sizeof(f->versions[0]) +
                                              ranked * sizeof(f->ranked[0]) + text_size);
    f->name = list->name;
    f->ranked = (const struct pub_job **)(void *)(f->versions + n);
    f->text = memcpy((char *)(f->ranked + ranked), list->name->text, text_size);
    f->count = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        const struct pub_job *job = list->jobs[i];
        uint64_t hash = pub_table_hash(t, 0, job->version, strlen(job->version));
        f->versions[i] = (struct pub_version){hash, job};
        f->has_starting |= job->is_starting;
        if (job->is_live && job->is_stable) {
            f->ranked[f->ranked_count++] = job;
        }
    }
    qsort(f->versions, n, sizeof(f->versions[0]), compare_hashes);
    qsort(f->ranked, ranked, sizeof(f->ranked[0]), compare_ranks);
    return f;
}

static void remove_job(struct pub_table *t, struct pub_job *job);

/* A version that was deleted and deployed again has two ids until the removal comes: the one that
 * was put last counts. */
static void drop_doubles(struct pub_table *t, struct pub_family_list *family)
{
    qsort(family->jobs, family->count, sizeof(family->jobs[0]), compare_texts);
    for (size_t i = family->count; i-- > 1;) {
        if (strcmp(family->jobs[i - 1]->version, family->jobs[i]->version) == 0) {
            remove_job(t, family->jobs[i - 1]);
            qsort(family->jobs, family->count, sizeof(family->jobs[0]), compare_texts);
            i = family->count;
        }
    }
}

static void publish_family(struct pub_table *t, struct pub_family_list *list)
{
    drop_doubles(t, list);
    struct pub_name_key key = {PUB_FAMILY_NAME, list->name->text, strlen(list->name->text)};
    uint64_t hash = hash_name(t, list->name);
    struct pub_family *old;
    if (list->count > 0) {
        old = pub_map_put(&t->families, t->readers, hash, &key, build_family(t, list));
    } else {
        old = pub_map_remove(&t->families, hash, &key);
        list->name->thing = NULL;
        unref_name(t, list->name);
        pub_retire(t->readers, list->jobs, free);
        pub_retire(t->readers, list, free);
    }
    if (old != NULL) {
        pub_retire(t->readers, old, free);
    }
}

/* -- jobs -- */

static uint32_t take_slot(struct pub_table *t)
{
    return t->free_slot_count > 0 ? t->free_slots[--t->free_slot_count] : t->slot_end++;
}

static void give_slot(struct pub_table *t, uint32_t slot)
{
    if (t->free_slot_count == t->free_slot_size) {
        t->free_slot_size = t->free_slot_size == 0 ? 16 : t->free_slot_size * 2;
        t->free_slots = trk_xrealloc(t->free_slots, t->free_slot_size * sizeof(t->free_slots[0]));
    }
    t->free_slots[t->free_slot_count++] = slot;
}

static char *put_text(char **at, const char *text)
{
    char *start = *at;
    size_t size = strlen(text) + 1;
    memcpy(start, text, size);
    *at += size;
    return start;
}

static size_t size_of_texts(const char *const *texts, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += strlen(texts[i]) + 1;
    }
    return size;
}

static const char *put_texts(char **at, const char *const *texts, size_t count)
{
    const char *start = *at;
    for (size_t i = 0; i < count; i++) {
        (void)put_text(at, texts[i]);
    }
    return start;
}

static struct pub_job *new_job(struct pub_table *t, const struct pub_job_record *record)
{
    size_t size = strlen(record->version) + strlen(record->status) + 2 +
                  (record->secret != NULL ? strlen(record->secret) + 1 : 0) +
                  size_of_texts(record->publics, record->public_count) +
                  size_of_texts(record->replicas, record->replica_count);
    struct pub_job *job = trk_xcalloc(1, sizeof(*job) + size);
    char *at = job->text;
    job->version = put_text(&at, record->version);
    job->status = put_text(&at, record->status);
    job->secret = record->secret != NULL ? put_text(&at, record->secret) : NULL;
    job->publics = put_texts(&at, record->publics, record->public_count);
    job->replicas = put_texts(&at, record->replicas, record->replica_count);
    job->public_count = (uint16_t)record->public_count;
    job->replica_count = (uint16_t)record->replica_count;
    job->serial = ++t->serial;
    job->is_live = trk_version_is_live(record->status);
    job->is_starting = strcmp(record->status, "starting") == 0;
    struct trk_semver v;
    if (trk_semver_parse(record->version, &v, NULL) == 0) {
        job->number[0] = v.major;
        job->number[1] = v.minor;
        job->number[2] = v.patch;
        job->is_stable = trk_semver_is_stable(&v);
    }
    return job;
}

/* Out of its family; the names go with it. */
static void retire_job(struct pub_table *t, struct pub_job *job)
{
    struct pub_family_list *family = job->family->thing;
    take_from_family(family, job);
    mark_dirty(t, family);
    unref_name(t, job->family);
    unref_name(t, job->id);
    pub_retire(t->readers, job, free);
    t->counts.jobs--;
}

void pub_table_put_job(struct pub_table *t, const struct pub_job_record *record)
{
    struct pub_job *job = new_job(t, record);
    job->id = ref_name(t, PUB_JOB_ID, record->id);
    struct pub_family_list *family = ref_family(t, record->name);
    job->family = family->name;
    struct pub_job *old = job->id->thing;
    job->slot = old != NULL ? old->slot : take_slot(t);
    job->id->thing = job;
    job->id->round = t->round;
    add_to_family(family, job);
    mark_dirty(t, family);
    t->counts.jobs++;
    if (old != NULL) {
        retire_job(t, old);
    }
}

static void remove_job(struct pub_table *t, struct pub_job *job)
{
    t->on_gone(t->ctx, job);
    give_slot(t, job->slot);
    job->id->thing = NULL;
    retire_job(t, job);
}

void pub_table_remove_job(struct pub_table *t, const char *id)
{
    struct pub_name *name = find_name(t, PUB_JOB_ID, id);
    if (name != NULL && name->thing != NULL) {
        remove_job(t, name->thing);
    }
}

/* -- subjects -- */

static uint64_t hash_token(const void *ctx, const void *entry)
{
    (void)ctx;
    return pub_digest_hash(((const struct pub_token *)entry)->digest);
}

static bool is_token(const void *entry, const void *key)
{
    return memcmp(((const struct pub_token *)entry)->digest, key, PUB_DIGEST_SIZE) == 0;
}

static int compare_grants(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const struct pub_grant *)a)->key;
    uintptr_t y = (uintptr_t)((const struct pub_grant *)b)->key;
    return x < y ? -1 : x > y;
}

static void put_grants(struct pub_table *t, struct pub_subject *s,
                       const struct pub_subject_record *record, char **at)
{
    s->grant_count = (uint32_t)record->grant_count;
    for (size_t i = 0; i < record->grant_count; i++) {
        const struct pub_grant_record *r = &record->grants[i];
        struct pub_grant *g = &s->grants[i];
        g->family = r->family != NULL ? ref_name(t, PUB_FAMILY_NAME, r->family) : NULL;
        g->key = r->job != NULL ? ref_name(t, PUB_JOB_ID, r->job) : g->family;
        g->endpoint = r->endpoint != NULL ? put_text(at, r->endpoint) : NULL;
    }
    qsort(s->grants, s->grant_count, sizeof(s->grants[0]), compare_grants);
}

static struct pub_subject *new_subject(struct pub_table *t, const struct pub_subject_record *record)
{
    size_t tokens = record->token_count * sizeof(struct pub_token);
    size_t grants = record->grant_count * sizeof(struct pub_grant);
    size_t size = strlen(record->caller) + strlen(record->type) + 2;
    for (size_t i = 0; i < record->grant_count; i++) {
        size += record->grants[i].endpoint != NULL ? strlen(record->grants[i].endpoint) + 1 : 0;
    }
    struct pub_subject *s = trk_xcalloc(1, sizeof(*s) + tokens + grants + size);
    s->grants = (struct pub_grant *)(void *)((char *)s->tokens + tokens);
    char *at = (char *)s->grants + grants;
    s->is_active = record->is_active;
    s->type = put_text(&at, record->type);
    s->caller = put_text(&at, record->caller);
    for (char *p = at - strlen(s->caller) - 1; *p != '\0'; p++) {
        *p = (unsigned char)*p < 0x20 || *p == 0x7F ? '?' : *p;
    }
    s->token_count = (uint32_t)record->token_count;
    for (uint32_t i = 0; i < s->token_count; i++) {
        memcpy(s->tokens[i].digest, record->tokens[i].digest, PUB_DIGEST_SIZE);
        s->tokens[i].ends_s = record->tokens[i].ends_s;
        s->tokens[i].index = i;
    }
    put_grants(t, s, record, &at);
    return s;
}

static void retire_subject(struct pub_table *t, struct pub_subject *s)
{
    for (uint32_t i = 0; i < s->token_count; i++) {
        const unsigned char *digest = s->tokens[i].digest;
        uint64_t hash = pub_digest_hash(digest);
        if (pub_map_find(&t->tokens, hash, digest) == &s->tokens[i]) {
            (void)pub_map_remove(&t->tokens, hash, digest);
        }
    }
    for (uint32_t i = 0; i < s->grant_count; i++) {
        const struct pub_grant *g = &s->grants[i];
        unref_name(t, g->key != g->family ? g->key : NULL);
        unref_name(t, g->family);
    }
    t->counts.subjects--;
    t->counts.grants -= s->grant_count;
    unref_name(t, s->id);
    pub_retire(t->readers, s, free);
}

void pub_table_put_subject(struct pub_table *t, const struct pub_subject_record *record)
{
    struct pub_subject *s = new_subject(t, record);
    s->id = ref_name(t, PUB_SUBJECT_ID, record->id);
    struct pub_subject *old = s->id->thing;
    s->id->thing = s;
    s->id->round = t->round;
    t->counts.subjects++;
    t->counts.grants += s->grant_count;
    for (uint32_t i = 0; i < s->token_count; i++) {
        struct pub_token *token = &s->tokens[i];
        uint64_t hash = pub_digest_hash(token->digest);
        const struct pub_token *before = pub_map_find(&t->tokens, hash, token->digest);
        if (before != NULL) { /* a use that is not reported yet */
            atomic_store_explicit(&token->last_s, atomic_load(&before->last_s),
                                  memory_order_relaxed);
        }
        (void)pub_map_put(&t->tokens, t->readers, hash, token->digest, token);
    }
    if (old != NULL) {
        retire_subject(t, old);
    }
}

void pub_table_remove_subject(struct pub_table *t, const char *id)
{
    struct pub_name *name = find_name(t, PUB_SUBJECT_ID, id);
    if (name != NULL && name->thing != NULL) {
        struct pub_subject *s = TRK_STEAL(name->thing);
        retire_subject(t, s);
    }
}

/* -- the whole -- */

static void gone_to_nobody(void *ctx, const struct pub_job *job)
{
    (void)ctx;
    (void)job;
}

struct pub_table *pub_table_new(struct pub_readers *readers, pub_job_gone_fn *on_gone, void *ctx)
{
    struct pub_table *t = trk_xcalloc(1, sizeof(*t));
    t->readers = readers;
    t->on_gone = on_gone != NULL ? on_gone : gone_to_nobody;
    t->ctx = ctx;
    randombytes_buf(t->key, sizeof(t->key));
    pub_map_init(&t->names, hash_name, is_name, t);
    pub_map_init(&t->families, hash_family, is_family, t);
    pub_map_init(&t->tokens, hash_token, is_token, t);
    return t;
}

void pub_table_free(struct pub_table *t)
{
    if (t == NULL) {
        return;
    }
    t->on_gone = gone_to_nobody;
    pub_table_begin_picture(t);
    pub_table_end_picture(t);
    pub_readers_fini(t->readers);
    pub_map_fini(&t->names);
    pub_map_fini(&t->families);
    pub_map_fini(&t->tokens);
    free(t->free_slots);
    free(t);
}

void pub_table_set_maintenance(struct pub_table *t, bool is_on)
{
    atomic_store(&t->is_maintenance, is_on);
}

bool pub_table_is_maintenance(const struct pub_table *t)
{
    return atomic_load(&t->is_maintenance);
}

void pub_table_begin_picture(struct pub_table *t)
{
    t->round++;
    t->is_in_picture = true;
}

void pub_table_end_picture(struct pub_table *t)
{
    if (!t->is_in_picture) {
        return;
    }
    t->is_in_picture = false;
    struct pub_name *name;
    for (size_t cursor = 0; (name = pub_map_next(&t->names, &cursor)) != NULL;) {
        if (name->thing == NULL || name->kind == PUB_FAMILY_NAME || name->round == t->round) {
            continue;
        }
        if (name->kind == PUB_JOB_ID) {
            remove_job(t, name->thing);
        } else {
            struct pub_subject *s = TRK_STEAL(name->thing);
            retire_subject(t, s);
        }
    }
    pub_table_publish(t);
    atomic_store_explicit(&t->has_picture, true, memory_order_release);
}

void pub_table_publish(struct pub_table *t)
{
    while (t->dirty != NULL) {
        struct pub_family_list *family = t->dirty;
        t->dirty = family->next_dirty;
        family->is_dirty = false;
        publish_family(t, family);
    }
    (void)pub_reclaim(t->readers);
}

void pub_table_tidy(struct pub_table *t)
{
    if (t->dirty == NULL) {
        (void)pub_reclaim(t->readers);
    }
}

void pub_table_count(const struct pub_table *t, struct pub_table_counts *ret)
{
    *ret = t->counts;
    ret->families = t->families.count;
    ret->tokens = t->tokens.count;
}

bool pub_table_next(const struct pub_table *t, size_t *cursor, const struct pub_job **ret_job,
                    const struct pub_subject **ret_subject)
{
    const struct pub_name *name;
    while ((name = pub_map_next(&t->names, cursor)) != NULL) {
        if (name->thing != NULL && name->kind != PUB_FAMILY_NAME) {
            *ret_job = name->kind == PUB_JOB_ID ? name->thing : NULL;
            *ret_subject = name->kind == PUB_SUBJECT_ID ? name->thing : NULL;
            return true;
        }
    }
    return false;
}
