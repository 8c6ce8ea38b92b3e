/*
 * feed.h - keeps the table as lifecycle tells it, and tells lifecycle what was called.
 *
 * One thread reads lifecycle's gateway stream into the table and comes back with growing pauses
 * when it breaks; another keeps a private copy on disk (digests, no tokens), from which the next
 * start goes on while lifecycle is away, and sends reports. While the stream is cut the table stays
 * as it is and its age grows.
 *
 *     pub_feed_new(&options, &feed, err);   // the copy is read
 *     pub_feed_start(feed, err); …; pub_feed_stop(feed);
 */
#ifndef PUB_FEED_H
#define PUB_FEED_H

#include "pub/stats.h"
#include "pub/table.h"

struct pub_feed;
struct pub_feed_options {
    const char *lifecycle_url, *token;
    const char *folder; /* for the copy; "": none is kept */
    struct pub_readers *readers;
    /* Both from the feed's threads, with the table locked: short work only. */
    pub_job_gone_fn *on_gone;
    void (*on_change)(void *ctx); /* something was published */
    void *ctx;
};

/* Borrows the options' texts, readers and ctx. A copy that cannot be read is left alone (logged).
 * *ret owned. */
int pub_feed_new(const struct pub_feed_options *options, struct pub_feed **ret,
                 struct trk_err *err) TRK_MUST_CHECK;
int pub_feed_start(struct pub_feed *feed, struct trk_err *err) TRK_MUST_CHECK;
/* Ends the threads, after a last report and copy. */
void pub_feed_stop(struct pub_feed *feed);
void pub_feed_free(struct pub_feed *feed);

/* Any thread. */
const struct pub_table *pub_feed_table(const struct pub_feed *feed);
struct pub_stats *pub_feed_stats(struct pub_feed *feed);
bool pub_feed_is_open(const struct pub_feed *feed);
/* How long ago lifecycle was heard of last, at `now_ns`; the copy's time counts too. -1: never. */
int64_t pub_feed_age_ns(const struct pub_feed *feed, int64_t now_ns);
void pub_feed_count(struct pub_feed *feed, struct pub_table_counts *ret);

#endif
