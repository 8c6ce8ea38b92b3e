/*
 * reporter.h - tells lifecycle in which phase a build is, without slowing the build down.
 *
 * A phase is sent when it has lasted a moment (REPORT_DELAY_MS): an assembled image is made before
 * anything would be worth telling. Only the last phase of a deployment waits to be sent, and none
 * is sent after reporter_forget has returned: a late report would overwrite what lifecycle itself
 * has written meanwhile. Any thread.
 */
#ifndef IMAGE_BUILDER_BUILD_REPORTER_H
#define IMAGE_BUILDER_BUILD_REPORTER_H

#define REPORT_DELAY_MS 150

struct reporter;

/* `url`: ".../lifecycle"; without a token nothing is sent. Both are copied. */
struct reporter *reporter_new(const char *url, const char *token);
void reporter_free(struct reporter *reporter);
void reporter_phase(struct reporter *reporter, const char *deployment_id, const char *phase,
                    const char *warnings);
void reporter_forget(struct reporter *reporter, const char *deployment_id);

#endif
