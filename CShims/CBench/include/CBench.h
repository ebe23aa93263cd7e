// What measurements compare with. Compiled for the machine it is built on, which nothing else here is.
#pragma once

#include <stddef.h>
#include <stdint.h>

#pragma clang assume_nonnull begin

// The plainest sum, in the compiler's hands: 32-bit words into 64 bits.
uint64_t apus_bench_compiler_sum(const void *bytes, size_t length);
// memcpy that no optimiser sees through.
void apus_bench_copy(void *to, const void *from, size_t length);

// Memory below 4 GiB, where a program compiled for the host can follow the 32-bit pointers of struct xdp_md. NULL: none.
void *_Nullable apus_bench_low_memory(size_t bytes);
// Runs a program that was compiled for the host `count` times, on the packets of 4 bytes start and end each at `packets`.
uint64_t apus_bench_native(void *program, const uint32_t *packets, size_t count);

#pragma clang assume_nonnull end
