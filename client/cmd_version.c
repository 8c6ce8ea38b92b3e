#include <stdio.h>

#include "client/cli.h"
#include "version.h"

int cmd_version(struct cli *cli, struct trk_err *err)
{
    (void)cli;
    (void)err;
    (void)printf("racetrack-client version %s\n", TRK_VERSION);
    return 0;
}
