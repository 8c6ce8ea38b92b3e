/*
 * pg_statement.c - which statements a session has prepared.
 *
 * A statement is prepared when it comes the second time, under a name made from its text: equal
 * names mean equal statements, whoever prepared them, so that a pooler that hands sessions around
 * can at worst say "no such statement", never run another one.
 */
#include <sodium.h>
#include <string.h>

#include "libtrack/base/mem.h"
#include "libtrack/pg/pg_internal.h"

#define SLOTS 256 /* power of two; a session has prepared three quarters of that at most */

struct pg_statement {
    unsigned char key[16]; /* of the text */
    bool is_there, is_prepared;
};
struct pg_statements {
    unsigned count;
    struct pg_statement slots[SLOTS];
};

struct pg_statement *pg_statement_find(struct pg_statements **all, const char *sql,
                                       char name[PG_STATEMENT_NAME_SIZE])
{
    if (*all == NULL) {
        *all = trk_xcalloc(1, sizeof(**all));
    }
    unsigned char key[16];
    (void)crypto_generichash(key, sizeof(key), (const unsigned char *)sql, strlen(sql), NULL, 0);
    unsigned at;
    memcpy(&at, key, sizeof(at));
    struct pg_statement *s = &(*all)->slots[at % SLOTS];
    while (s->is_there && memcmp(s->key, key, sizeof(key)) != 0) {
        s = &(*all)->slots[++at % SLOTS];
    }
    if (!s->is_there) { /* its first time, or no more room */
        if ((*all)->count < SLOTS * 3 / 4) {
            (*all)->count++;
            memcpy(s->key, key, sizeof(key));
            s->is_there = true;
        }
        return NULL;
    }
    (void)sodium_bin2hex(name, PG_STATEMENT_NAME_SIZE, key, sizeof(key));
    return s;
}

bool pg_statement_is_prepared(const struct pg_statement *s)
{
    return s->is_prepared;
}

void pg_statement_note_prepared(struct pg_statement *s)
{
    s->is_prepared = true;
}
