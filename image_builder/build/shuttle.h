/*
 * shuttle.h - carries bytes between two sockets, both ways, until both sides have ended. Links
 * nothing but libc: the launcher inside the sandbox uses it too.
 */
#ifndef IMAGE_BUILDER_BUILD_SHUTTLE_H
#define IMAGE_BUILDER_BUILD_SHUTTLE_H

#include <stdatomic.h>
#include <stdbool.h>

/* Borrows both. `stop` (may be NULL) is looked at five times a second. */
void shuttle(int a, int b, const atomic_bool *stop);

#endif
