// What measurements compare with. Compiled for the machine it is built on, which nothing else here is.
#pragma once

#include <stddef.h>
#include <stdint.h>

#pragma clang assume_nonnull begin

// The plainest sum, in the compiler's hands: 32-bit words into 64 bits.
uint64_t apus_bench_compiler_sum(const void *bytes, size_t length);
// memcpy that no optimiser sees through.
void apus_bench_copy(void *to, const void *from, size_t length);

#pragma clang assume_nonnull end
