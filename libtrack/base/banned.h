/* Functions that this code base does not use; calling one is a compile error. Included by the build
 * before everything. */
#ifndef LIBTRACK_BANNED_H
#define LIBTRACK_BANNED_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#pragma GCC poison strcpy strcat sprintf vsprintf strtok gmtime localtime ctime asctime gets popen \
    tmpnam mktemp
#endif
