#include "CLinux.h"

#include <sys/prctl.h>
#include <time.h>

void apus_sleep_microseconds(unsigned microseconds) {
    struct timespec time = {.tv_nsec = (long)microseconds * 1000};
    nanosleep(&time, NULL);
}

void apus_sleep_precisely(void) { prctl(PR_SET_TIMERSLACK, 1); }
