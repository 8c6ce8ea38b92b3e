/*
 * table.h - columns of text for a terminal: as wide as their widest cell, by display width. Own
 * because libsmartcols would be loaded by every command for this one.
 */
#ifndef CLIENT_TABLE_H
#define CLIENT_TABLE_H

#include <stddef.h>
#include <stdio.h>

struct table;

struct table *table_new(size_t columns);
void table_free(struct table *table);
/* Next cell of the current row (left to right, then the next row). Copies; control characters
 * become '?'. */
void table_add(struct table *table, const char *text);
void table_print(const struct table *table, FILE *out);

#endif
