#include "client/manifest_input.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libtrack/base/buf.h"
#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"
#include "libtrack/data/json.h"
#include "libtrack/data/yaml.h"
#include "libtrack/manifest/manifest.h"

#define STDIN_HINT_MS 2000

/* All of stdin when it is no terminal. A pipe that nobody writes to would block for ever: say so.
 */
static int read_stdin(struct trk_buf *buf, struct trk_err *err)
{
    struct stat st;
    if (isatty(STDIN_FILENO) == 1 || fstat(STDIN_FILENO, &st) < 0) {
        return 0;
    }
    struct pollfd poll_fd = {.fd = STDIN_FILENO, .events = POLLIN};
    if (!S_ISREG(st.st_mode) && poll(&poll_fd, 1, STDIN_HINT_MS) == 0) {
        cli_warn("waiting for a manifest on stdin; when there is none, add </dev/null");
    }
    int rc = trk_buf_read_fd(buf, STDIN_FILENO, err);
    if (rc == TRK_TOO_LARGE) {
        return trk_err_set(err, rc, "the manifest on stdin has more than %d KiB",
                           TRK_YAML_BYTES_MAX / 1024);
    }
    /* A closed stdin, or one that cannot be read, holds no manifest. */
    return 0;
}

static bool is_blank(const struct trk_buf *buf)
{
    return strspn(buf->data, " \t\r\n") == buf->len;
}

/* Beside the folder's own manifest when the folder can be written (then `extends` works), else in
 * the folder for temporary files. *ret_path owned: the file, to be removed. */
static int write_temporary(const char *folder, const struct trk_buf *text, char **ret_path,
                           struct trk_err *err)
{
    const char *tmp = getenv("TMPDIR");
    const char *const folders[] = {folder, tmp != NULL ? tmp : "/tmp"};
    for (size_t i = 0; i < TRK_COUNT(folders); i++) {
        trk_autofree char *path = trk_xasprintf("%s/.job-stdin-XXXXXX.yaml", folders[i]);
        trk_autoclose int fd = mkostemps(path, 5, O_CLOEXEC);
        if (fd < 0) {
            continue;
        }
        int rc = trk_write_all(fd, text->data, text->len, err);
        if (rc < 0) {
            (void)unlink(path);
            return rc;
        }
        *ret_path = TRK_STEAL(path);
        return 0;
    }
    return trk_err_errno(err, errno, "storing the manifest of stdin");
}

static void print_warnings(const struct trk_faults *warnings)
{
    for (size_t i = 0; i < warnings->count && i < TRK_FAULTS_MAX; i++) {
        const struct trk_fault *fault = &warnings->list[i];
        cli_warn("%s%s%s", fault->path, fault->path[0] != '\0' ? ": " : "", fault->text);
    }
}

static int load(struct manifest_input *input, const struct cli *cli, const char *path,
                struct trk_err *err)
{
    trk_autofree struct trk_faults *warnings = trk_xcalloc(1, sizeof(*warnings));
    trk_autofree char *found = NULL;
    int rc = trk_manifest_load(path, cli->extra_vars, &input->manifest, &found, warnings, err);
    if (rc < 0) {
        return rc;
    }
    print_warnings(warnings);
    input->source = TRK_STEAL(found);
    bool is_changed = cli->extra_vars[0] != NULL;
    size_t len = 0;
    if (is_changed ||
        trk_file_read(input->source, TRK_YAML_BYTES_MAX, &input->text, &len, err) < 0) {
        return is_changed ? 0 : err->code;
    }
    /* With `extends` the text alone is not what takes effect. */
    json_auto_t *plain = NULL;
    struct trk_err ignored = {0};
    if (trk_yaml_parse(input->text, len, input->source, &plain, &ignored) < 0 ||
        !json_equal(plain, input->manifest)) {
        free(TRK_STEAL(input->text));
    }
    return 0;
}

static char *folder_of(const char *path)
{
    struct stat st;
    const char *slash = strrchr(path, '/');
    if (stat(path, &st) < 0 || S_ISDIR(st.st_mode)) {
        return trk_xstrdup(path);
    }
    if (slash == NULL) {
        return trk_xstrdup(".");
    }
    return slash == path ? trk_xstrdup("/") : trk_xstrndup(path, (size_t)(slash - path));
}

int manifest_input_load(struct manifest_input *input, struct cli *cli, const char *path,
                        struct trk_err *err)
{
    *input = (struct manifest_input){.folder = folder_of(path)};
    struct trk_buf text;
    trk_buf_init(&text, TRK_YAML_BYTES_MAX);
    int rc = read_stdin(&text, err);
    if (rc == 0 && is_blank(&text)) {
        rc = load(input, cli, path, err);
    } else if (rc == 0) {
        trk_autofree char *temporary = NULL;
        rc = write_temporary(input->folder, &text, &temporary, err);
        if (rc == 0) {
            rc = load(input, cli, temporary, err);
            (void)unlink(temporary);
            free(input->source);
            input->source = trk_xstrdup("the manifest on stdin");
        }
    }
    trk_buf_fini(&text);
    if (rc < 0) {
        manifest_input_fini(input);
    }
    return rc;
}

void manifest_input_fini(struct manifest_input *input)
{
    json_decref(input->manifest);
    free(input->source);
    free(input->folder);
    free(input->text);
    *input = (struct manifest_input){0};
}
