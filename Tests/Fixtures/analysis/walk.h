#pragma once
// What callbacks of helpers are given: the packet, and what they found so far.
#include "fixture.h"

struct walk {
    struct xdp_md *ctx;
    __u32 sum;
};
