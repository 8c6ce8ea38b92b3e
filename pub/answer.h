/*
 * answer.h - reading lifecycle's answers to "may this caller call that job?".
 */
#ifndef PUB_ANSWER_H
#define PUB_ANSWER_H

#include "libtrack/base/err.h"
#include "pub/worker.h"

/* {job: {name, version, status, internal_name, replica_internal_names}, caller, decision,
 * valid_for_ms}, asked for at asked_ns. *ret is counted for the caller. TRK_BAD_GATEWAY when
 * something needed is missing. */
int pub_answer_decision(struct pub_worker *w, struct trk_h1_slice body, int64_t asked_ns,
                        struct pub_decision **ret, struct trk_err *err) TRK_MUST_CHECK;
/* Puts the answer's {"error"} or {"detail"} into err->text, or its first bytes. */
void pub_answer_error(struct trk_h1_slice body, struct trk_err *err);
/* Joins the chunks in place once all are there: 1, else 0 (bytes unchanged), or -1. */
int pub_answer_dechunk(char *bytes, size_t *len);

#endif
