/*
 * table.h - what pub was told: jobs with their versions and replicas, callers with the digests of
 * their tokens and their grants. Every call is decided from it, on any thread and without a lock.
 *
 * One writer (the feed's thread) puts and removes whole records; changes show when they are
 * published. What it replaces goes through reclaim.h: a reader may use what it found until it
 * leaves (the end of its loop's turn). Tokens are known by their SHA-256 only.
 *
 *     writer: pub_table_put_job(t, &record); pub_table_publish(t);
 *     reader: if (pub_table_decide(t, &question, &found) == PUB_MAY_CALL) use(found.job);
 */
#ifndef PUB_TABLE_H
#define PUB_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libtrack/http/h1.h"
#include "pub/reclaim.h"

#define PUB_DIGEST_SIZE  32
#define PUB_VERSION_SIZE 64 /* of a wildcard; longer texts are exact versions */

/* -- what is found; all of it borrowed until the reader leaves -- */

/* An id or the name of a family, one object for equal texts: compared by its address. */
struct pub_name {
    uint32_t refs; /* the writer's, as are the next three */
    uint32_t round;
    void *thing;
    char kind;
    _Atomic uint32_t calls;  /* of a job, since they were reported */
    _Atomic uint32_t last_s; /* its last call, Unix seconds */
    char text[];
};
struct pub_job {
    struct pub_name *id, *family;
    uint64_t serial; /* of this state of the job; never used again */
    uint64_t number[3];
    uint32_t slot; /* of the job; below pub_table_slots */
    bool is_live, is_stable, is_starting;
    uint16_t public_count, replica_count;
    const char *version, *status;
    const char *secret;   /* NULL: none */
    const char *publics;  /* texts one behind the other, each with its NUL */
    const char *replicas; /* host:port, likewise */
    char text[];
};
struct pub_grant {
    const struct pub_name *key; /* the job's id, else the family, else NULL: everything */
    const struct pub_name *family;
    const char *endpoint; /* NULL: all */
};
struct pub_token {
    unsigned char digest[PUB_DIGEST_SIZE];
    int64_t ends_s; /* Unix seconds; 0: never */
    uint32_t index;
    _Atomic uint32_t last_s; /* last use that is not reported yet, Unix seconds; 0: none */
};
struct pub_subject {
    struct pub_name *id;
    uint32_t token_count, grant_count;
    bool is_active;
    const char *type;
    const char *caller; /* fit for a header */
    struct pub_grant *grants;
    struct pub_token tokens[];
};
static inline const struct pub_subject *pub_token_subject(const struct pub_token *token)
{
    return (const struct pub_subject *)(const void *)((const char *)(token - token->index) -
                                                      offsetof(struct pub_subject, tokens));
}

/* Notes the time of a use; most calls find it there. */
static inline void pub_note(_Atomic uint32_t *last_s, uint32_t now_s)
{
    if (atomic_load_explicit(last_s, memory_order_relaxed) != now_s) {
        atomic_store_explicit(last_s, now_s, memory_order_relaxed);
    }
}

/* -- reading, any thread -- */

struct pub_table;

enum pub_verdict {
    PUB_MAY_CALL,
    PUB_KNOWS_NOTHING, /* no whole picture was ever seen */
    PUB_MAINTENANCE,
    PUB_NO_FAMILY,
    PUB_NO_VERSION,
    PUB_NO_TOKEN,
    PUB_UNKNOWN_TOKEN,
    PUB_ENDED_TOKEN,
    PUB_INACTIVE,
    PUB_NOT_ALLOWED
};
struct pub_question {
    struct trk_h1_slice job, version; /* decoded */
    const char *endpoint;             /* decoded, "" or "/a/b" */
    struct trk_h1_slice token;        /* may be empty; looked at last */
    const unsigned char *digest;      /* of the token, when it is known already; else NULL */
    int64_t now_s;                    /* Unix seconds */
};
struct pub_finding {
    /* NULL: not found. is_starting: it cannot be called yet; a wildcard means such a one when no
     * other matches. */
    const struct pub_job *job;
    const struct pub_token *token;     /* NULL: a public path, or unknown */
    const struct pub_subject *subject; /* of the token */
    size_t version_count;              /* of the family */
};
enum pub_verdict pub_table_decide(const struct pub_table *t, const struct pub_question *q,
                                  struct pub_finding *ret);
void pub_digest(struct trk_h1_slice token, unsigned char ret[PUB_DIGEST_SIZE]);
/* Was a whole picture ever seen? */
bool pub_table_has_picture(const struct pub_table *t);

/* -- writing, one thread -- */

struct pub_job_record {
    const char *id, *name, *version, *status, *secret; /* secret may be NULL */
    const char *const *publics, *const *replicas;
    size_t public_count, replica_count;
};
struct pub_token_record {
    unsigned char digest[PUB_DIGEST_SIZE];
    int64_t ends_s;
};
struct pub_grant_record {
    const char *family, *job, *endpoint; /* each may be NULL */
};
struct pub_subject_record {
    const char *id, *type, *caller;
    bool is_active;
    const struct pub_token_record *tokens;
    const struct pub_grant_record *grants;
    size_t token_count, grant_count;
};
struct pub_table_counts {
    size_t families, jobs, subjects, tokens, grants;
};

/* A job was removed: told before its memory goes. */
typedef void pub_job_gone_fn(void *ctx, const struct pub_job *job);

struct pub_table *pub_table_new(struct pub_readers *readers, pub_job_gone_fn *on_gone, void *ctx);
void pub_table_free(struct pub_table *t);
/* Records are copied. */
void pub_table_put_job(struct pub_table *t, const struct pub_job_record *record);
void pub_table_remove_job(struct pub_table *t, const char *id);
void pub_table_put_subject(struct pub_table *t, const struct pub_subject_record *record);
void pub_table_remove_subject(struct pub_table *t, const char *id);
void pub_table_set_maintenance(struct pub_table *t, bool is_on);
/* A full picture: what is not put until its end is removed then. */
void pub_table_begin_picture(struct pub_table *t);
void pub_table_end_picture(struct pub_table *t);
/* Shows the jobs that were put and removed (callers show at once), and frees what is old. */
void pub_table_publish(struct pub_table *t);
/* Frees what is old, if nothing waits to be published: what was replaced is still found then. */
void pub_table_tidy(struct pub_table *t);
void pub_table_count(const struct pub_table *t, struct pub_table_counts *ret);
bool pub_table_is_maintenance(const struct pub_table *t);
/* What there is, one by one: *cursor begins at 0. Exactly one of *ret_job, *ret_subject is set. */
bool pub_table_next(const struct pub_table *t, size_t *cursor, const struct pub_job **ret_job,
                    const struct pub_subject **ret_subject);

#endif
