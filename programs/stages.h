#pragma once
// A program in steps, each a program of its own that ends in a tail call to the next: how large programs are cut so
// that the verifier can follow them. What a step knows travels in a per-CPU map. Before this: struct state.
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, struct state);
    __uint(max_entries, 1);
} scratch SEC(".maps");

static __always_inline struct state *stage_state(void)
{
    __u32 zero = 0;
    return bpf_map_lookup_elem(&scratch, &zero);
}

// SEC("xdp") NAME: FUNCTION, and where that says XDP_TX the program at SLOT of `steps`.
#define STAGE(name, function, slot) \
    SEC("xdp") int name(struct xdp_md *ctx) \
    { \
        struct state *state = stage_state(); \
        if (!state) \
            return XDP_ABORTED; \
        int verdict = function(ctx, state); \
        if (verdict == XDP_TX) { \
            bpf_tail_call(ctx, &steps, slot); \
            verdict = XDP_ABORTED; \
        } \
        return verdict; \
    }

#define STAGE_LAST(name, function) \
    SEC("xdp") int name(struct xdp_md *ctx) \
    { \
        struct state *state = stage_state(); \
        return state ? function(ctx, state) : XDP_ABORTED; \
    }

// The first step begins with nothing known.
static __always_inline void stage_begin(void)
{
    struct state *state = stage_state();
    if (state)
        __builtin_memset(state, 0, sizeof(*state));
}

#define STEPS(...) \
    struct { \
        __uint(type, BPF_MAP_TYPE_PROG_ARRAY); \
        __uint(key_size, sizeof(__u32)); \
        __uint(max_entries, 8); \
        __array(values, int(void *)); \
    } steps SEC(".maps") = {.values = {__VA_ARGS__}}
