/*
 * manifest_input.h - the manifest a command works on: a folder's job.yaml, or what is piped in.
 */
#ifndef CLIENT_MANIFEST_INPUT_H
#define CLIENT_MANIFEST_INPUT_H

#include <jansson.h>

#include "client/cli.h"
#include "libtrack/base/err.h"

struct manifest_input {
    json_t *manifest; /* owned: merged, with extra vars, checked */
    char *source;     /* owned: its path, or "the manifest on stdin" */
    char *folder;     /* owned: what the job's files are relative to */
    char *text;       /* owned: the text as written when it is used unchanged, else NULL */
};
/* `path`: a folder or a manifest file. stdin is read when it is no terminal; when it is not empty,
 * it is the manifest and `path` only the folder. Prints warnings. */
int manifest_input_load(struct manifest_input *input, struct cli *cli, const char *path,
                        struct trk_err *err) TRK_MUST_CHECK;
void manifest_input_fini(struct manifest_input *input);

#endif
