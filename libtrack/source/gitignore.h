/*
 * gitignore.h - which files of a folder .gitignore leaves out (gitignore(5)).
 *
 * Patterns of the .gitignore files in the folder and below it count, a deeper file before a higher
 * one, a later line before an earlier one; a file below an ignored folder cannot be brought back.
 * Always left out: .git, .gitignore, __pycache__, *.pyc, *.zip. One thread.
 *
 *     struct trk_gitignore *rules = trk_gitignore_new();
 *     trk_gitignore_add_lines(rules, "", "*.log\n!keep.log\n");     // of ./.gitignore
 *     if (trk_gitignore_is_ignored(rules, "a/b.log", false)) ...
 */
#ifndef LIBTRACK_GITIGNORE_H
#define LIBTRACK_GITIGNORE_H

#include <stdbool.h>

struct trk_gitignore;

struct trk_gitignore *trk_gitignore_new(void);
void trk_gitignore_free(struct trk_gitignore *rules);
/* Lines of the .gitignore in `folder` ("" for the top, "a/b" without slashes at the ends). */
void trk_gitignore_add_lines(struct trk_gitignore *rules, const char *folder, const char *lines);
/* Is this path itself left out? A caller that walks does not enter ignored folders. */
bool trk_gitignore_is_ignored(const struct trk_gitignore *rules, const char *path, bool is_folder);
/* wildmatch of one pattern, '/' matched by ** only. For tests. */
bool trk_gitignore_match(const char *pattern, const char *text);

#endif
