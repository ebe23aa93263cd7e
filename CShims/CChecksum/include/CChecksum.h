// The one loop that sums packet bytes.
#pragma once

#include <stddef.h>
#include <stdint.h>

#pragma clang assume_nonnull begin

// RFC 1071 sum of `length` bytes as they lie in memory (native words, an odd last byte padded with
// zero), not folded, not complemented. At most 2^32 words fit: `length` stays below 2^33.
__attribute__((swift_attr("@_noLocks")))
uint64_t apus_sum_bytes(const void *bytes, size_t length);

#pragma clang assume_nonnull end
