/*
 * standalone.h - `image_builder build [FOLDER]`: the image of a job's folder, without any service.
 */
#ifndef IMAGE_BUILDER_STANDALONE_H
#define IMAGE_BUILDER_STANDALONE_H

#include "image_builder/config.h"
#include "libtrack/base/err.h"

/* Builds it into the store of the configuration's state folder, which no service may be using;
 * prints the build's log, then where the image lies. The state folder is made absolute. */
int standalone_build(struct builder_config *config, const char *folder,
                     struct trk_err *err) TRK_MUST_CHECK;

#endif
