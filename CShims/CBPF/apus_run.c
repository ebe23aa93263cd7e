#define _GNU_SOURCE
#include "apus_run.h"
#include <errno.h>
#include <sched.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/rseq.h>
#include <time.h>
#include <unistd.h>

static __thread struct apus_scratch scratch;
uint64_t apus_context[8];

struct apus_scratch *apus_scratch(void) { return &scratch; }

uint64_t apus_ktime_ns(enum apus_clock clock)
{
    static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE, CLOCK_TAI };
    struct timespec now;
    clock_gettime(clocks[clock], &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint32_t apus_cpu(void)
{
    int cpu = sched_getcpu();
    return cpu < 0 ? 0 : (uint32_t)cpu;
}

long apus_cpu_place(void) { return __rseq_size ? (long)__rseq_offset + (long)offsetof(struct rseq, cpu_id) : 0; }

void apus_stay(_Bool stays)
{
    static __thread cpu_set_t before;
    if (!stays) {
        sched_setaffinity(0, sizeof(before), &before);
        return;
    }
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(apus_cpu(), &here);
    sched_getaffinity(0, sizeof(before), &before);
    sched_setaffinity(0, sizeof(here), &here);
}

// xorshift64*, seeded from the clock and the thread's own address.
uint32_t apus_random32(void)
{
    static __thread uint64_t state;
    if (state == 0)
        state = (apus_ktime_ns(APUS_CLOCK_MONOTONIC) ^ (uint64_t)&state) | 1;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1dull) >> 32);
}

// The kernel's form is a list of ranges, "0-3" or "0,2-7"; its last number is what counts.
uint32_t apus_possible_cpus(void)
{
    static uint32_t count;
    uint32_t known = __atomic_load_n(&count, __ATOMIC_RELAXED);
    if (known)
        return known;
    FILE *file = fopen("/sys/devices/system/cpu/possible", "re");
    unsigned last = 0, number;
    if (file) {
        while (fscanf(file, "%u%*[-,]", &number) == 1)
            last = number;
        fclose(file);
    } else {
        long configured = sysconf(_SC_NPROCESSORS_CONF);
        last = configured > 0 ? (unsigned)configured - 1 : 0;
    }
    __atomic_store_n(&count, last + 1, __ATOMIC_RELAXED);
    return last + 1;
}

void *apus_ring_map(size_t bytes)
{
    int fd = memfd_create("apus-ring", MFD_CLOEXEC);
    if (fd < 0)
        return NULL;
    char *at = MAP_FAILED;
    if (ftruncate(fd, (off_t)bytes) == 0)
        at = mmap(NULL, 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at != MAP_FAILED) {
        int flags = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
        if (mmap(at, bytes, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED
            || mmap(at + bytes, bytes, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED) {
            munmap(at, 2 * bytes);
            at = MAP_FAILED;
        }
    }
    close(fd);
    return at == MAP_FAILED ? NULL : at;
}

void apus_ring_unmap(void *at, size_t bytes) { munmap(at, 2 * bytes); }

static uint64_t cookie_keys[2][2];

static void make_cookie_keys(void)
{
    if (getrandom(cookie_keys, sizeof(cookie_keys), 0) != sizeof(cookie_keys))
        for (int i = 0; i < 8; i++)
            ((uint32_t *)cookie_keys)[i] = apus_random32();
}

static inline uint64_t rotate(uint64_t v, int bits) { return v << bits | v >> (64 - bits); }

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1]; v[1] = rotate(v[1], 13); v[1] ^= v[0]; v[0] = rotate(v[0], 32);
    v[2] += v[3]; v[3] = rotate(v[3], 16); v[3] ^= v[2];
    v[0] += v[3]; v[3] = rotate(v[3], 21); v[3] ^= v[0];
    v[2] += v[1]; v[1] = rotate(v[1], 17); v[1] ^= v[2]; v[2] = rotate(v[2], 32);
}

static inline void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

// SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF"), over whole 64-bit words.
uint32_t apus_cookie_hash(uint64_t addresses, size_t size, uint64_t tcp, uint32_t minute, uint32_t key)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_cookie_keys);
    const uint64_t *k = cookie_keys[key & 1];
    uint64_t v[4] = { k[0] ^ 0x736f6d6570736575ull, k[1] ^ 0x646f72616e646f6dull, k[0] ^ 0x6c7967656e657261ull,
                      k[1] ^ 0x7465646279746573ull };
    for (size_t at = 0; at < size; at += 8)
        sip_word(v, apus_load64(addresses + at));
    sip_word(v, (uint64_t)minute << 32 | apus_load32(tcp));
    sip_word(v, (uint64_t)(size + 8) << 56);
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return (uint32_t)(v[0] ^ v[1] ^ v[2] ^ v[3]);
}

static apus_mtu_hook mtu_hook;

void apus_set_mtu_hook(apus_mtu_hook hook) { __atomic_store_n(&mtu_hook, hook, __ATOMIC_RELEASE); }

long apus_interface_mtu(uint32_t index)
{
    apus_mtu_hook hook = __atomic_load_n(&mtu_hook, __ATOMIC_ACQUIRE);
    return hook ? hook(index) : -1;
}

static apus_route_hook route_hook;

void apus_set_route_hook(apus_route_hook hook) { __atomic_store_n(&route_hook, hook, __ATOMIC_RELEASE); }

long apus_route(uint64_t params, uint32_t size, uint32_t flags)
{
    apus_route_hook hook = __atomic_load_n(&route_hook, __ATOMIC_ACQUIRE);
    return hook ? hook((void *)params, size, flags) : -ENODEV;
}

void apus_set_trace(uint8_t *map, const void *code, size_t size)
{
    struct apus_scratch *s = apus_scratch();
    s->traced = (uint64_t)map;
    s->traced_code = (uint64_t)code;
    s->traced_size = size;
}

#ifdef APUS_PLANTED
int apus_planted_bug = -1;
#endif
