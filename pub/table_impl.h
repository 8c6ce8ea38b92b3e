/* table_impl.h - the inside of table.h, for its two halves: table.c writes, look.c reads. */
#ifndef PUB_TABLE_IMPL_H
#define PUB_TABLE_IMPL_H

#include "pub/map.h"
#include "pub/table.h"

/* The published versions of a family, replaced whole. */
struct pub_version {
    uint64_t hash; /* of the version's text */
    const struct pub_job *job;
};
struct pub_family {
    struct pub_name *name;
    const char *text; /* the name's, close by */
    uint32_t count, ranked_count;
    bool has_starting;
    const struct pub_job **ranked; /* stable and live, highest first */
    struct pub_version versions[]; /* by hash */
};
/* The writer's side of it. */
struct pub_family_list {
    struct pub_name *name;
    struct pub_job **jobs;
    size_t count, size;
    bool is_dirty;
    struct pub_family_list *next_dirty;
};
struct pub_table {
    struct pub_readers *readers;
    struct pub_map names;    /* the writer's: kind and text -> struct pub_name */
    struct pub_map families; /* name -> struct pub_family */
    struct pub_map tokens;   /* digest -> struct pub_token */
    unsigned char key[16];
    uint32_t round;
    bool is_in_picture;
    uint64_t serial;
    struct pub_family_list *dirty;
    uint32_t *free_slots;
    size_t free_slot_count, free_slot_size;
    uint32_t slot_end;
    struct pub_table_counts counts;
    pub_job_gone_fn *on_gone;
    void *ctx;
    _Atomic bool has_picture, is_maintenance;
};
enum pub_name_kind { PUB_JOB_ID = 'j', PUB_SUBJECT_ID = 's', PUB_FAMILY_NAME = 'f' };
struct pub_name_key {
    char kind;
    const char *text;
    size_t len;
};

/* Is the text the key's? */
static inline bool pub_is_text(const char *text, const struct pub_name_key *key)
{
    return __builtin_strncmp(text, key->text, key->len) == 0 && text[key->len] == '\0';
}
uint64_t pub_table_hash(const struct pub_table *t, char kind, const char *text, size_t len);
static inline uint64_t pub_digest_hash(const unsigned char *digest)
{
    uint64_t hash;
    __builtin_memcpy(&hash, digest, sizeof(hash));
    return hash;
}

#endif
