/*
 * replay.c - a main() for fuzz targets: runs every file that its arguments name (folders are
 * searched) through LLVMFuzzerTestOneInput. A target ends the process when it finds a fault; the
 * name of the input is printed then. A corpus without inputs is a fault too.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include "libtrack/base/file.h"
#include "libtrack/base/mem.h"

#define INPUT_BYTES_MAX (64u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char current[4096];
static size_t replayed;

/* Sanitizers end the process without a signal, and have their own last words. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void name_input(void)
{
    static const char text[] = "fuzz: the input at fault is ";
    (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
    (void)!write(STDERR_FILENO, current, strlen(current));
    (void)!write(STDERR_FILENO, "\n", 1);
}

static void on_signal(int number)
{
    name_input();
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* From a copy of exactly its size, so that a sanitizer sees any read past the end. */
static void replay(const char *path, const char *bytes, size_t len)
{
    (void)snprintf(current, sizeof(current), "%s", path);
    uint8_t *copy = trk_xmalloc(len);
    if (len > 0) {
        memcpy(copy, bytes, len);
    }
    (void)LLVMFuzzerTestOneInput(copy, len);
    free(copy);
    replayed++;
}

static int visit_file(const char *path)
{
    struct trk_err err = {0};
    trk_autofree char *bytes = NULL;
    size_t len;
    if (trk_file_read(path, INPUT_BYTES_MAX, &bytes, &len, &err) < 0) {
        (void)fprintf(stderr, "fuzz: %s\n", err.text);
        return 1;
    }
    replay(path, bytes, len);
    return 0;
}

static int visit(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        (void)fprintf(stderr, "fuzz: %s: %s\n", path, strerror(errno));
        return 1;
    }
    if (!S_ISDIR(st.st_mode)) {
        return visit_file(path);
    }
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, NULL, alphasort);
    int failures = count < 0;
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.') {
            trk_autofree char *inner = trk_xasprintf("%s/%s", path, entries[i]->d_name);
            failures += visit(inner);
        }
        free(entries[i]);
    }
    free(entries);
    return failures;
}

int main(int argc, char **argv)
{
    int failures = 0;
    if (__sanitizer_set_death_callback != NULL) {
        __sanitizer_set_death_callback(name_input);
    }
    (void)signal(SIGABRT, on_signal);
    (void)signal(SIGSEGV, on_signal);
    replay("(no bytes)", "", 0);
    for (int i = 1; i < argc; i++) {
        failures += visit(argv[i]);
    }
    if (replayed < 2) {
        (void)fprintf(stderr, "%s: no inputs\n", argv[0]);
        return 1;
    }
    (void)printf("%s: %zu inputs\n", argv[0], replayed);
    return failures > 0 ? 1 : 0;
}
