/*
 * secret_files.h - the files of a job's folder that its manifest names as files of secrets.
 *
 * Their content travels sealed, in secret_vars; the files themselves belong into no build context.
 * They are known by what they are, not by how their path is written: "conf/../run.env", a hard link
 * and the target of a symbolic link hold the same secrets. Any thread.
 */
#ifndef LIBTRACK_MANIFEST_SECRET_FILES_H
#define LIBTRACK_MANIFEST_SECRET_FILES_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/stat.h>

#define TRK_SECRET_FILES 2
struct trk_secret_field {
    const char *field; /* of the manifest: a path */
    const char *key;   /* of secret_vars: an object of variables */
};
extern const struct trk_secret_field trk_secret_fields[TRK_SECRET_FILES];
/* What the manifest says there; NULL when it names no file. Borrows. */
const char *trk_secret_path(const json_t *manifest, const struct trk_secret_field *field);

struct trk_secret_files {
    struct {
        dev_t dev;
        ino_t ino;
    } list[2 * TRK_SECRET_FILES]; /* each may be a link and what that leads to */
    size_t count;
};
/* Those that are there now, as seen from the job's folder. */
void trk_secret_files_find(struct trk_secret_files *files, int dirfd, const json_t *manifest);
/* Is the entry `name` of the folder `dirfd` one of them? */
bool trk_secret_files_has(const struct trk_secret_files *files, int dirfd, const char *name);

#endif
