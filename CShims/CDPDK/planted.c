#include "CDPDK.h"

#ifdef APUS_PLANTED
#include <stdlib.h>
#include <string.h>

bool apus_planted_seed;

void apus_planted_read(void) {
    const char *bug = getenv("APUS_PLANT");
    apus_planted_seed = bug != NULL && strcmp(bug, "wrong-seed") == 0;
}
#endif
