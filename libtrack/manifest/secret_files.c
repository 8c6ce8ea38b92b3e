#include "libtrack/manifest/secret_files.h"

#include <fcntl.h>

#include "libtrack/base/str.h"
#include "libtrack/data/json.h"

const struct trk_secret_field trk_secret_fields[TRK_SECRET_FILES] = {
    {"secret_build_env_file", "build_env"},
    {"secret_runtime_env_file", "runtime_env"},
};

const char *trk_secret_path(const json_t *manifest, const struct trk_secret_field *field)
{
    const char *path = trk_json_string_or(manifest, field->field, NULL);
    return trk_str_is_empty(path) ? NULL : path;
}

static void add_file(struct trk_secret_files *files, int dirfd, const char *path, int flags)
{
    struct stat st;
    if (fstatat(dirfd, path, &st, flags) == 0 && !S_ISDIR(st.st_mode)) {
        files->list[files->count].dev = st.st_dev;
        files->list[files->count].ino = st.st_ino;
        files->count++;
    }
}

void trk_secret_files_find(struct trk_secret_files *files, int dirfd, const json_t *manifest)
{
    files->count = 0;
    for (size_t i = 0; i < TRK_SECRET_FILES; i++) {
        const char *path = trk_secret_path(manifest, &trk_secret_fields[i]);
        if (path != NULL) {
            add_file(files, dirfd, path, 0);
            add_file(files, dirfd, path, AT_SYMLINK_NOFOLLOW);
        }
    }
}

bool trk_secret_files_has(const struct trk_secret_files *files, int dirfd, const char *name)
{
    struct stat st;
    if (files->count == 0 || fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        return false;
    }
    for (size_t i = 0; i < files->count; i++) {
        if (files->list[i].dev == st.st_dev && files->list[i].ino == st.st_ino) {
            return true;
        }
    }
    return false;
}
