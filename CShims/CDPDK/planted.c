#include "CDPDK.h"

#ifdef APUS_PLANTED
#include <stdlib.h>
#include <string.h>

bool apus_planted_seed, apus_planted_loss;

void apus_planted_read(void) {
    const char *bug = getenv("APUS_PLANT");
    apus_planted_seed = bug != NULL && strcmp(bug, "wrong-seed") == 0;
    apus_planted_loss = bug != NULL && strcmp(bug, "lost-buffer") == 0;
}
#endif
