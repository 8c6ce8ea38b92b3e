/*
 * record.h - the records of lifecycle's gateway stream, into the table and out of it.
 *
 * One event is a JSON array of records, each the whole present state of its key:
 *   job              {"id","name","version","status","public":["/path"],"replicas":[{"address"}],
 *                     "secret"}
 *   job_removed      {"id"}
 *   subject          {"id","type","name","active","tokens":[{"d","e"}],
 *                     "grants":[{"family","job","endpoint"}]}
 *   subject_removed  {"id"}
 * The table's writer only.
 */
#ifndef PUB_RECORD_H
#define PUB_RECORD_H

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"
#include "pub/table.h"

/* Applies an event's records. 1; 0 for an event of another kind (nothing is done); TRK_SCHEMA or
 * TRK_INVALID: a record is malformed, those before it are applied. */
int pub_record_apply(struct pub_table *t, const char *event, const char *data,
                     struct trk_err *err) TRK_MUST_CHECK;
/* Appends the record as one JSON object. */
void pub_record_write_job(const struct pub_job *job, struct trk_buf *buf);
void pub_record_write_subject(const struct pub_subject *subject, struct trk_buf *buf);

#endif
