/*
 * oci_internal.h - rules that packing and unpacking of layers share. Only for libtrack/oci_*.c.
 */
#ifndef LIBTRACK_OCI_INTERNAL_H
#define LIBTRACK_OCI_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

/* Folders deeper than this are refused: every walk down a tree stays cheap and never runs out of
 * stack. */
#define OCI_DEPTH_MAX 128
#define OCI_PATH_MAX  4096

/* May a symbolic link that lies `depth` folders below the root point to `target`? It may when the
 * target is relative, has `..` only in front, and no more of them than `depth`. Then the link can
 * not lead out: its folder is a real one at that depth, and what comes after the leading `..` only
 * goes down, or through links of which the same holds. (A `..` behind a name could climb out
 * through a link of that name, which no look at the text alone can tell.) */
bool oci_link_stays_inside(const char *target, size_t depth);

#endif
