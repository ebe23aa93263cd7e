#pragma once
// libbpf 1.1.2, reduced to: have the kernel verify one XDP program of an object, and look at what libbpf
// made of it. Nothing is attached or pinned; closing the handle leaves nothing behind in the kernel.
#include <stddef.h>
#include <stdint.h>

typedef struct apus_object apus_object;

// How far apus_object_load() came.
enum apus_stage {
    APUS_STAGE_OPEN,    // libbpf could not open the object
    APUS_STAGE_FIND,    // it has no such program
    APUS_STAGE_LOAD,    // libbpf could not relocate it, or the kernel refused it
    APUS_STAGE_DONE,    // loaded: the program was verified
};

struct apus_map_info {
    const char *_Nonnull name;  // libbpf's: of a data section it is cut and prefixed with the object's name
    uint32_t type, key_size, value_size, max_entries, flags;
    int fd;
    _Bool internal;             // a data section, not declared in .maps
};

// Where a program is meant to run: on a device, or behind a redirect as an entry of a device or CPU map.
enum apus_place { APUS_PLACE_DEVICE, APUS_PLACE_DEVICE_MAP, APUS_PLACE_CPU_MAP };

struct apus_program_request {
    const char *_Nonnull name;
    _Bool frags;
    enum apus_place place;
    _Bool bound;                // asks the receiving device about packets: verified for a throw-away veth
};

// What to tell libbpf of the kernel instead of letting it look: raw BTF, and lines as of a kernel's configuration.
struct apus_target {
    const void *_Nullable types;
    size_t types_size;
    const char *_Nullable settings;
};

// What to do with a map of the object, by its place: create it or not, and with how many entries (0: as declared).
struct apus_map_request {
    _Bool create;
    uint32_t entries;
};

int apus_fork(void);    // Swift hides fork(); only for a process of one thread

// Loads these programs of the object, at least one, and no other. Returns NULL only when memory is short. Errors are
// read from the handle; close it in every case.
apus_object *_Nullable apus_object_load(const void *_Nonnull bytes, size_t size, const char *_Nonnull object_name,
                                        const struct apus_program_request *_Nonnull programs, size_t count,
                                        const struct apus_map_request *_Nonnull maps, size_t map_count,
                                        const struct apus_target *_Nonnull target);
void apus_object_close(apus_object *_Nonnull object);

enum apus_stage apus_object_stage(const apus_object *_Nonnull object);
int apus_object_error(const apus_object *_Nonnull object);                          // 0 or -errno
const char *_Nonnull apus_object_verifier_log(const apus_object *_Nonnull object);  // empty unless the kernel refused
const char *_Nonnull apus_object_messages(const apus_object *_Nonnull object);      // libbpf's warnings

// The instructions of a program as libbpf relocated and loaded them, 8 bytes each. Only after APUS_STAGE_DONE.
const void *_Nullable apus_object_instructions(const apus_object *_Nonnull object, size_t program, size_t *_Nonnull count);
// Of the first program asked for.
int apus_object_program_fd(const apus_object *_Nonnull object);
size_t apus_object_map_count(const apus_object *_Nonnull object);
struct apus_map_info apus_object_map(const apus_object *_Nonnull object, size_t index);

// Kernel maps, for the tests' comparison. 0 or -errno.
int apus_map_take(int fd, const void *_Nullable key, void *_Nonnull value);
int apus_map_lookup(int fd, const void *_Nullable key, void *_Nonnull value);
int apus_map_update(int fd, const void *_Nullable key, const void *_Nonnull value, uint64_t flags);
int apus_map_delete(int fd, const void *_Nonnull key);
int apus_map_next_key(int fd, const void *_Nullable key, void *_Nonnull next);

// BPF_PROG_TEST_RUN of an XDP program, once. out_size goes in as room and comes out as the packet's size.
int apus_test_run(int program_fd, const void *_Nonnull in, size_t in_size, void *_Nonnull out,
                  uint32_t *_Nonnull out_size, uint32_t *_Nonnull verdict);
// The same `repeat` times on one packet, each time on what the last run left; nanoseconds a run, rounded down.
int apus_test_repeat(int program_fd, const void *_Nonnull in, size_t in_size, uint32_t repeat, uint32_t *_Nonnull duration);
// Attaches the program to a device, in its driver, until the descriptor that is returned is closed; -errno. A program that is
// attached somewhere stays in the kernel's dispatcher: a measurement of one that is not begins and ends with waiting for
// every CPU (bpf_dispatcher_change_prog), which takes a hundred times as long as what it measures.
int apus_attach(int program_fd, unsigned int device);
// Loads bare instructions as an XDP program without an object, for the tests. fd or -errno.
int apus_program_load(const void *_Nonnull instructions, size_t count, char *_Nonnull log, uint32_t log_size);
int apus_map_create(uint32_t type, uint32_t key_size, uint32_t value_size, uint32_t max_entries, uint32_t flags);
void apus_close(int fd);

// A network namespace with nothing but a veth pair in it, of the calling thread until it is left.
struct apus_sandbox {
    int home;               // descriptor of the namespace to go back to
    unsigned int device;    // index of one end
};
int apus_sandbox_enter(struct apus_sandbox *_Nonnull sandbox);      // 0 or -errno
void apus_sandbox_leave(struct apus_sandbox *_Nonnull sandbox);

// Keeps the calling thread on one CPU; a negative number lets it go. For tests, which Swift denies sched_setaffinity.
int apus_pin(int cpu);

// All of a file, unpacked where it is gzip's. NULL if it cannot be read; otherwise the caller frees it.
char *_Nullable apus_read_packed(const char *_Nonnull path, size_t *_Nonnull size);
// Takes the records out of a kernel ring buffer: each as its length in 4 bytes, then its bytes. Bytes used or -errno.
long apus_kernel_records(int fd, void *_Nonnull to, size_t room);
