#define _GNU_SOURCE
#include "apus_run.h"
#include <sched.h>
#include <time.h>

static __thread struct apus_scratch scratch;

struct apus_scratch *apus_scratch(void) { return &scratch; }

uint64_t apus_ktime_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint32_t apus_cpu(void)
{
    int cpu = sched_getcpu();
    return cpu < 0 ? 0 : (uint32_t)cpu;
}

// xorshift64*, seeded from the clock and the thread's own address.
uint32_t apus_random32(void)
{
    static __thread uint64_t state;
    if (state == 0)
        state = (apus_ktime_ns() ^ (uint64_t)&state) | 1;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1dull) >> 32);
}
