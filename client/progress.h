/*
 * progress.h - what a deployment is doing: a line a phase, with the time since the start; on a
 * terminal also a line at the bottom that ticks. The ticking is a thread of its own.
 */
#ifndef CLIENT_PROGRESS_H
#define CLIENT_PROGRESS_H

#include "libtrack/base/err.h"

struct progress;

/* `interrupt_text` is printed when Ctrl-C ends the program (status 130) from now on until stop. */
struct progress *progress_start(const char *interrupt_text);
/* A new phase: printed with the elapsed time. The same one again is not. */
void progress_phase(struct progress *progress, const char *phase);
/* A line that stays (a warning, a lost connection); goes to stderr. */
void progress_note(struct progress *progress, const char *fmt, ...) TRK_PRINTF(2, 3);
double progress_elapsed_s(const struct progress *progress);
/* Removes the ticking line and frees; NULL is fine. */
void progress_stop(struct progress *progress);

#endif
