/*
 * share.h - one thread's answers from lifecycle become every thread's, so that a known caller stays
 * known on whichever thread the next connection lands while lifecycle is away.
 *
 * An answer must not arrive behind the event that ended it: every event raises the epoch before the
 * threads are told, and an answer asked for in an older epoch is not adopted.
 */
#ifndef PUB_SHARE_H
#define PUB_SHARE_H

#include "pub/worker.h"

/* The epoch to remember when a question is sent. */
uint64_t pub_share_epoch(const struct pub_worker *w);
/* Gives a copy to the other threads. */
void pub_share_decision(struct pub_worker *w, const struct pub_decision *d, uint64_t epoch);

#endif
