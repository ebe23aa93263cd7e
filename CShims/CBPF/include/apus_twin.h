#pragma once
// The kernel as a twin, for tests: bare programs of several functions, maps that hold maps.
#include <stddef.h>
#include <stdint.h>

// Loads bare instructions as an XDP program. `functions`: where each function starts, the first at 0; the kernel asks for
// a type of each before it calls one back. Without `log` (log_size 0) a refusal costs less. fd or -errno.
int apus_twin_load(const void *_Nonnull instructions, size_t count, const uint32_t *_Nonnull functions,
                   size_t function_count, char *_Nullable log, uint32_t log_size);
// An array of maps that look like `inner`. fd or -errno.
int apus_twin_map_of_maps(uint32_t max_entries, int inner);
// Ids of the BPF objects in the kernel; `kind`: 'p' programs, 'm' maps, 'b' types, 'l' links. How many there are, which may
// be more than `room`, or -errno.
long apus_twin_ids(char kind, uint32_t *_Nonnull ids, size_t room);
// BPF_PROG_TEST_RUN, once, of a packet with `metadata` bytes in front of it (counted in in_size) that came in on `device`
// (0: the loopback device). out_size goes in as room and comes out as the size of metadata and packet. 0 or -errno.
int apus_twin_run(int program, const void *_Nonnull in, size_t in_size, uint32_t metadata, uint32_t device,
                  void *_Nonnull out, uint32_t *_Nonnull out_size, uint32_t *_Nonnull verdict);
// Keeps this thread on the CPU it runs on: per-CPU values then mean the same to the kernel and to us. NULL: it stays free.
void *_Nullable apus_twin_pin(void);
void apus_twin_unpin(void *_Nullable pinned);
// Whether AddressSanitizer watches this process.
_Bool apus_is_sanitized(void);
// Its reports of this process go to standard error, whatever ASAN_OPTIONS says.
void apus_report_here(void);
