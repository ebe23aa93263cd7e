#pragma once
// For measurements: BPF programs compiled for the host, with helpers as native functions. A map's variable holds, in its
// first word, what the host knows the map by.
#include <linux/bpf.h>
#include <linux/types.h>

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#ifndef NULL
#define NULL ((void *)0)
#endif

struct apus_native {
    __u64 (*lookup)(__u64 map, __u64 key);
    __u64 (*update)(__u64 map, __u64 key, __u64 value, __u64 flags);
    __u64 (*erase)(__u64 map, __u64 key);
    __u64 (*csum_diff)(__u64 from, __u64 from_size, __u64 to, __u64 to_size, __u64 seed);
    __u64 (*ktime)(void);
};
__attribute__((weak)) struct apus_native apus_native;

static inline void *bpf_map_lookup_elem(void *map, const void *key)
{
    return (void *)apus_native.lookup(*(__u64 *)map, (__u64)key);
}
static inline long bpf_map_update_elem(void *map, const void *key, const void *value, __u64 flags)
{
    return (long)apus_native.update(*(__u64 *)map, (__u64)key, (__u64)value, flags);
}
static inline long bpf_map_delete_elem(void *map, const void *key) { return (long)apus_native.erase(*(__u64 *)map, (__u64)key); }
static inline __s64 bpf_csum_diff(const void *from, __u32 from_size, const void *to, __u32 to_size, __u32 seed)
{
    return (__s64)apus_native.csum_diff((__u64)from, from_size, (__u64)to, to_size, seed);
}
static inline __u64 bpf_ktime_get_ns(void) { return apus_native.ktime(); }
static inline __u64 bpf_xdp_get_buff_len(struct xdp_md *ctx) { return ctx->data_end - ctx->data; }
