#pragma once
// Hot: what the engine needs on an lcore and Swift cannot say without a lock, a lazy global or a class.
// Every function is annotated, so that @_noLocks callers may use it.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define APUS_HOT __attribute__((swift_attr("@_noLocks")))
#define APUS_INLINE static inline APUS_HOT

#define APUS_FRAME_BYTES 512    // of each function, RFC 9669 leaves it open, the kernel says 512
#define APUS_FRAMES_MAX 8       // the kernel's limit on nested calls, main program included

// One run's registers, call stack and stack frames. 4.5 KiB would have to be zeroed for every packet if they
// were a Swift local; thread-local they are there, and no two lcores share them.
struct apus_scratch {
    uint64_t registers[16];     // r0 to r10; [11] holds the immediate of the instruction at hand
    uint64_t saved[APUS_FRAMES_MAX][8];
    uint8_t frames[APUS_FRAMES_MAX][APUS_FRAME_BYTES] __attribute__((aligned(64)));
    uint64_t traced;            // tests: a byte map of the instructions that ran, from `traced_code` on; 0: no trace
    uint64_t traced_code;
    uint64_t traced_size;
};
_Static_assert(offsetof(struct apus_scratch, frames) % 64 == 0, "frames are cleared in whole cache lines");

struct apus_scratch *_Nonnull apus_scratch(void) APUS_HOT;
APUS_INLINE uint64_t *_Nonnull apus_scratch_registers(struct apus_scratch *_Nonnull s) { return s->registers; }
APUS_INLINE uint64_t *_Nonnull apus_scratch_saved(struct apus_scratch *_Nonnull s) { return s->saved[0]; }
APUS_INLINE uint64_t apus_scratch_frames(struct apus_scratch *_Nonnull s) { return (uint64_t)s->frames[0]; }

// Tests only: which instructions run. `step` is the size of one.
APUS_INLINE _Bool apus_is_traced(const struct apus_scratch *_Nonnull s) { return s->traced != 0; }
APUS_INLINE void apus_trace(const void *_Nonnull code, size_t step)
{
    struct apus_scratch *s = apus_scratch();
    uint64_t at = ((uint64_t)code - s->traced_code) / step;
    if (at < s->traced_size)
        ((uint8_t *)s->traced)[at] = 1;
}
void apus_set_trace(uint8_t *_Nullable map, const void *_Nullable code, size_t size);

// Never read: only its address counts, it stands for struct xdp_md.
extern uint64_t apus_context[8];
APUS_INLINE uint64_t apus_context_address(void) { return (uint64_t)apus_context; }

// Compiled code: `count` contexts, each run leaves an effect. Returns r0 of the last. A call even where it is the last thing
// its caller does: a jump to an address in a register would look like one through a table, and whoever reads the call
// graph is to see it.
APUS_INLINE uint64_t apus_run_burst(uint64_t entry, void *_Nonnull contexts, void *_Nonnull effects, size_t count)
{
    uint64_t r0 = ((uint64_t (*)(void *, void *, size_t))entry)(contexts, effects, count);
    __asm__ volatile("" : "+r"(r0));
    return r0;
}

enum apus_clock { APUS_CLOCK_MONOTONIC, APUS_CLOCK_BOOT, APUS_CLOCK_COARSE, APUS_CLOCK_TAI };
uint64_t apus_ktime_ns(enum apus_clock clock) APUS_HOT;
// Hands a packet whose checksum a program is about to look at to whoever can finish it.
typedef void (*apus_completion)(void *_Nonnull argument);
APUS_INLINE void apus_complete(apus_completion _Nonnull complete, void *_Nonnull argument) { complete(argument); }
uint32_t apus_cpu(void) APUS_HOT;
// Where the kernel keeps this thread's CPU number, in bytes from the thread pointer (restartable sequences, glibc 2.35);
// 0: nowhere.
long apus_cpu_place(void);
// Keeps this thread on the CPU it is on, or lets it go where it might before: for tests and measurements.
void apus_stay(_Bool stays);
uint32_t apus_possible_cpus(void);          // highest CPU number there can be, plus one
uint32_t apus_random32(void) APUS_HOT;      // not for secrets

// Host memory by address, any alignment. Swift's own loads call into the standard library in debug builds, where
// @_noLocks is checked too (Swift 6.3).
#define APUS_MEMORY(type, bits) \
    APUS_INLINE type apus_load##bits(uint64_t at) { type v; memcpy(&v, (const void *)at, sizeof(v)); return v; } \
    APUS_INLINE void apus_store##bits(uint64_t at, type v) { memcpy((void *)at, &v, sizeof(v)); }
APUS_MEMORY(uint8_t, 8)
APUS_MEMORY(uint16_t, 16)
APUS_MEMORY(uint32_t, 32)
APUS_MEMORY(uint64_t, 64)
APUS_INLINE void *_Nonnull apus_pointer(uint64_t at) { return (void *_Nonnull)at; }
APUS_INLINE uint32_t *_Nonnull apus_word32(uint64_t at) { return (uint32_t *_Nonnull)at; }
APUS_INLINE uint64_t *_Nonnull apus_word64(uint64_t at) { return (uint64_t *_Nonnull)at; }

APUS_INLINE void apus_move(void *_Nonnull to, const void *_Nonnull from, size_t n) { memmove(to, from, n); }
APUS_INLINE void apus_zero(void *_Nonnull at, size_t n) { memset(at, 0, n); }
APUS_INLINE _Bool apus_equal(const void *_Nonnull a, const void *_Nonnull b, size_t n) { return memcmp(a, b, n) == 0; }

#if defined(__x86_64__)
#define APUS_PAUSE() __builtin_ia32_pause()
#else
#define APUS_PAUSE() __asm__ volatile("yield")
#endif

// Chains of the hash map: readers follow links while one writer changes them.
APUS_INLINE uint32_t apus_acquire32(const uint32_t *_Nonnull p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
APUS_INLINE void apus_release32(uint32_t *_Nonnull p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
APUS_INLINE uint64_t apus_acquire64(const uint64_t *_Nonnull p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
APUS_INLINE void apus_release64(uint64_t *_Nonnull p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
APUS_INLINE uint8_t apus_relaxed8(const uint8_t *_Nonnull p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
APUS_INLINE void apus_set_relaxed8(uint8_t *_Nonnull p, uint8_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
APUS_INLINE void apus_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
APUS_INLINE _Bool apus_try_lock(uint32_t *_Nonnull p) { return __atomic_exchange_n(p, 1, __ATOMIC_ACQUIRE) == 0; }
APUS_INLINE void apus_lock(uint32_t *_Nonnull p) { while (__atomic_exchange_n(p, 1, __ATOMIC_ACQUIRE)) APUS_PAUSE(); }
APUS_INLINE void apus_unlock(uint32_t *_Nonnull p) { __atomic_store_n(p, 0, __ATOMIC_RELEASE); }

// RFC 9669 section 5.3; all of them return the old value. The kernel promises full ordering.
#define APUS_ATOMIC(name, type, builtin) \
    APUS_INLINE type name(type *_Nonnull p, type v) { return builtin(p, v, __ATOMIC_SEQ_CST); }
APUS_ATOMIC(apus_atomic_add32, uint32_t, __atomic_fetch_add)
APUS_ATOMIC(apus_atomic_or32, uint32_t, __atomic_fetch_or)
APUS_ATOMIC(apus_atomic_and32, uint32_t, __atomic_fetch_and)
APUS_ATOMIC(apus_atomic_xor32, uint32_t, __atomic_fetch_xor)
APUS_ATOMIC(apus_atomic_xchg32, uint32_t, __atomic_exchange_n)
APUS_ATOMIC(apus_atomic_add64, uint64_t, __atomic_fetch_add)
APUS_ATOMIC(apus_atomic_or64, uint64_t, __atomic_fetch_or)
APUS_ATOMIC(apus_atomic_and64, uint64_t, __atomic_fetch_and)
APUS_ATOMIC(apus_atomic_xor64, uint64_t, __atomic_fetch_xor)
APUS_ATOMIC(apus_atomic_xchg64, uint64_t, __atomic_exchange_n)
APUS_INLINE uint32_t apus_atomic_cas32(uint32_t *_Nonnull p, uint32_t old, uint32_t v)
{
    __atomic_compare_exchange_n(p, &old, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return old;
}
APUS_INLINE uint64_t apus_atomic_cas64(uint64_t *_Nonnull p, uint64_t old, uint64_t v)
{
    __atomic_compare_exchange_n(p, &old, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return old;
}

// Memory of a ring buffer: `bytes` (whole pages) mapped twice in a row, so that no record is split. NULL: no memory.
void *_Nullable apus_ring_map(size_t bytes);
void apus_ring_unmap(void *_Nonnull at, size_t bytes);

// bpf_trace_printk and its relatives: `format` with `count` values of 64 bits each. Writes at most `room` bytes with
// the final zero, and returns what snprintf would, or -EINVAL for a conversion the kernel's helpers do not know.
// Strings are read through `string`, which gives NULL where the program may not read.
typedef const char *_Nullable (*apus_string_reader)(uint64_t address, const void *_Nullable of);
long apus_format(char *_Nullable to, size_t room, const char *_Nonnull format, size_t format_size,
                 const uint64_t *_Nonnull values, size_t count, apus_string_reader _Nonnull string,
                 const void *_Nullable of) APUS_HOT;

// The same as programs call it. `checked`: addresses of strings are not to be believed and print as empty.
long apus_print(uint64_t format, size_t format_size, uint64_t values, size_t count, int checked) APUS_HOT;
long apus_print_to(uint64_t to, size_t room, uint64_t format, size_t format_size, uint64_t values, size_t count,
                   int checked) APUS_HOT;

// Keyed hash of addresses, the TCP header's ports and a minute; two keys, made when first used.
uint32_t apus_cookie_hash(uint64_t addresses, size_t size, uint64_t tcp, uint32_t minute, uint32_t key) APUS_HOT;

// MTU of an interface by index, -1 if there is none: asked of the host, which knows ports the kernel does not.
typedef long (*apus_mtu_hook)(uint32_t index);
void apus_set_mtu_hook(apus_mtu_hook _Nullable hook);
long apus_interface_mtu(uint32_t index) APUS_HOT;

// bpf_fib_lookup: routes, neighbours and devices are the host's to know. What the kernel's helper returns: 0 and the
// answers in `params` (struct bpf_fib_lookup), one of BPF_FIB_LKUP_RET_*, or -errno. -ENODEV where nobody knows.
typedef long (*apus_route_hook)(void *_Nonnull params, uint32_t size, uint32_t flags);
void apus_set_route_hook(apus_route_hook _Nullable hook);
long apus_route(uint64_t params, uint32_t size, uint32_t flags) APUS_HOT;

// What programs print: one ring for the process, lines cut at 511 bytes. Returns how many bytes were copied and
// how many lines were lost since the last read.
void apus_trace_line(const char *_Nonnull text, size_t size) APUS_HOT;
size_t apus_trace_read(char *_Nonnull to, size_t room, uint64_t *_Nonnull lost);

#ifdef APUS_PLANTED
// Which bug is planted on purpose (EBPF/EngineBug.swift); -1: none. Written by tests alone.
extern int apus_planted_bug;
#define APUS_PLANTED_OVERREAD 1000  // C: apus_format reads a byte behind its format
APUS_INLINE int apus_planted_bug_now(void) { return apus_planted_bug; }
// Swift 6 takes the variable itself for shared mutable state.
static inline void apus_planted_bug_set(int bug) { apus_planted_bug = bug; }
#endif
