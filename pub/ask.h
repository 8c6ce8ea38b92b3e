/*
 * ask.h - may this caller call that job? From the cache, else from lifecycle.
 *
 * Nothing here blocks: a miss sends a question over a connection of the loop, equal questions wait
 * for the same answer, and a bounded number runs at once. A decision is fresh for
 * LIFECYCLE_CACHE_TTL_MIN (two seconds while the event stream is broken). An older one, up to
 * LIFECYCLE_CACHE_TTL_MAX, is used while lifecycle cannot answer; a definite no removes it.
 * Refusals are not cached.
 *
 *     enum pub_answer a = pub_ask(w, &question, &client->waiter, &decision);
 */
#ifndef PUB_ASK_H
#define PUB_ASK_H

#include "pub/worker.h"

struct pub_question {
    struct trk_h1_slice job, version, endpoint, token; /* decoded; token may be empty */
    const char *tracing_id;
    bool must_ask; /* the cached decision led to a dead address */
};
struct pub_waiter {
    struct pub_waiter *next, *prev;
    struct pub_ask *ask;        /* NULL: not waiting */
    struct pub_decision *stale; /* to use when lifecycle does not answer; counted */
    /* Exactly one call, unless cancelled. `decision` is counted for the waiter, or NULL: then
     * status is lifecycle's (0: no answer) and `text` its reason. */
    void (*on_answer)(struct pub_waiter *waiter, struct pub_decision *decision, int status,
                      const char *text);
};
enum pub_answer { PUB_ANSWERED, PUB_WAIT, PUB_OVERLOADED };

/* PUB_ANSWERED: *ret is counted for the caller. PUB_WAIT: waiter->on_answer comes later. */
enum pub_answer pub_ask(struct pub_worker *w, const struct pub_question *question,
                        struct pub_waiter *waiter, struct pub_decision **ret);
void pub_ask_cancel(struct pub_waiter *waiter);
/* Lifecycle is slow: hands out the stale decision now (NULL if there is none) and stops waiting. */
struct pub_decision *pub_ask_take_stale(struct pub_worker *w, struct pub_waiter *waiter);
/* What is being asked may be outdated when its answer comes: do not keep it. NULL: every job. */
void pub_ask_taint(struct pub_worker *w, const char *job);
/* Ends all questions without answers. */
void pub_asks_fini(struct pub_worker *w);

#endif
