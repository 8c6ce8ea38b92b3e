/*
 * picture.h - lifecycle's gateway stream, event by event, into the table; and the table written as
 * such a stream, which is the form of the copy on disk.
 *
 *   snapshot {"id"}, then job, subject, settings, at last snapshot_end: the whole picture
 *   resumed {"id"}: the changes since Last-Event-ID follow
 *   job, subject, job_removed, subject_removed: see record.h
 *   settings {"maintenance"}
 * An event with an id moves the place to go on from. Other events are left alone. The table's
 * writer only.
 *
 *     struct pub_picture p = {.table = table, .position = -1};
 *     pub_picture_event(&p, "snapshot", "", "{\"id\":7}", err); …
 */
#ifndef PUB_PICTURE_H
#define PUB_PICTURE_H

#include "libtrack/base/buf.h"
#include "libtrack/base/err.h"
#include "pub/table.h"

struct pub_picture {
    struct pub_table *table;
    int64_t position; /* id to resume after; -1: none */
    bool is_in_picture;
    bool is_in_sync; /* what comes next are changes; false it at the start of each stream */
    bool is_changed; /* something was put or removed; false it when it is published */
};
/* TRK_INVALID, TRK_SCHEMA: it is malformed; the position is lost then. */
int pub_picture_event(struct pub_picture *p, const char *event, const char *id, const char *data,
                      struct trk_err *err) TRK_MUST_CHECK;
/* Appends the whole table. */
void pub_picture_write(const struct pub_table *table, struct trk_buf *buf);

#endif
