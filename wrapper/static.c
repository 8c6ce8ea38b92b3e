#include "wrapper/front.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"

const char *static_mime(const char *file_name)
{
    static const struct {
        const char *extension, *mime;
    } known[] = {
        {"html", "text/html; charset=utf-8"},
        {"htm", "text/html; charset=utf-8"},
        {"css", "text/css; charset=utf-8"},
        {"js", "text/javascript; charset=utf-8"},
        {"mjs", "text/javascript; charset=utf-8"},
        {"json", "application/json"},
        {"map", "application/json"},
        {"xml", "application/xml"},
        {"pdf", "application/pdf"},
        {"zip", "application/zip"},
        {"gz", "application/gzip"},
        {"tar", "application/x-tar"},
        {"wasm", "application/wasm"},
        {"csv", "text/csv; charset=utf-8"},
        {"md", "text/markdown; charset=utf-8"},
        {"png", "image/png"},
        {"jpg", "image/jpeg"},
        {"jpeg", "image/jpeg"},
        {"gif", "image/gif"},
        {"svg", "image/svg+xml"},
        {"webp", "image/webp"},
        {"ico", "image/vnd.microsoft.icon"},
        {"bmp", "image/bmp"},
        {"mp3", "audio/mpeg"},
        {"wav", "audio/x-wav"},
        {"mp4", "video/mp4"},
        {"webm", "video/webm"},
        {"woff", "font/woff"},
        {"woff2", "font/woff2"},
        {"ttf", "font/ttf"},
        {"otf", "font/otf"},
    };
    const char *slash = strrchr(file_name, '/');
    const char *dot = strrchr(slash != NULL ? slash : file_name, '.');
    for (size_t i = 0; dot != NULL && i < TRK_COUNT(known); i++) {
        if (strcasecmp(dot + 1, known[i].extension) == 0) {
            return known[i].mime;
        }
    }
    return "text/plain; charset=utf-8";
}

/* Opens what is below the directory and nowhere else; a directory's index.html stands for it. */
static int open_below(const char *directory, const char *rest, int *ret_fd, struct trk_err *err)
{
    trk_autoclose int base = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (base < 0) {
        return trk_err_errno(err, errno, "opening %s", directory);
    }
    size_t len = strlen(rest);
    bool is_index = len == 0 || rest[len - 1] == '/';
    trk_autofree char *path = trk_xasprintf("%s%s", rest, is_index ? "index.html" : "");
    /* A FIFO in the folder must not stop the loop. */
    return trk_open_beneath(base, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0, ret_fd, err);
}

void static_serve(struct conn *conn, const struct job_static *entry, const char *rest)
{
    trk_autoclose int fd = -1;
    struct trk_err err = {0};
    struct stat st;
    if (entry->is_directory) {
        (void)!open_below(entry->file, rest, &fd, &err);
    } else {
        fd = open(entry->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        conn_reply_error(conn, 404, "NotFound", "there is no such file");
        return;
    }
    const char *name = entry->is_directory && *rest != '\0' ? rest : entry->file;
    size_t len = strlen(name);
    bool is_index = entry->is_directory && (*rest == '\0' || name[len - 1] == '/');
    const struct reply reply = {
        .status = 200,
        .type = *entry->mime != '\0' ? entry->mime
                : is_index           ? static_mime("index.html")
                                     : static_mime(name),
        .headers = "X-Content-Type-Options: nosniff\r\n",
        .len = (size_t)st.st_size,
        .data = "",
        .file_fd = TRK_STEAL_FD(fd),
    };
    conn_reply(conn, &reply);
}
