#define _GNU_SOURCE
#include "apus_object.h"
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef BPF_F_XDP_HAS_FRAGS
#define BPF_F_XDP_HAS_FRAGS (1U << 5)   // Linux 5.18
#endif
#ifndef BPF_F_XDP_DEV_BOUND_ONLY
#define BPF_F_XDP_DEV_BOUND_ONLY (1U << 6)  // Linux 6.3
#endif
_Static_assert(sizeof(struct bpf_insn) == 8, "instructions are handed to Swift as 8 bytes each");

enum { LOG_BYTES = 4 << 20, MESSAGES_BYTES = 8192 };

struct apus_object {
    struct bpf_object *object;
    struct bpf_program **programs;
    enum apus_stage stage;
    int error;
    char *log;
    char messages[MESSAGES_BYTES];
};

// libbpf prints through one global callback and says nothing about the object at hand; the thread does. What others
// in the process do with libbpf (DPDK's AF_XDP driver) goes where it went before.
static __thread struct apus_object *current;
static libbpf_print_fn_t previous;

static int capture(enum libbpf_print_level level, const char *format, va_list arguments)
{
    if (!current)
        return previous ? previous(level, format, arguments) : 0;
    if (level != LIBBPF_WARN)
        return 0;
    size_t used = strlen(current->messages);
    return vsnprintf(current->messages + used, MESSAGES_BYTES - used, format, arguments);
}

static void install_capture(void) { previous = libbpf_set_print(capture); }

// libbpf knows only a few spellings of XDP sections; "xdp/name" is not one of them.
static void prepare(struct bpf_program *program, const struct apus_program_request *request, unsigned int device)
{
    static const enum bpf_attach_type places[] = { BPF_XDP, BPF_XDP_DEVMAP, BPF_XDP_CPUMAP };
    bpf_program__set_type(program, BPF_PROG_TYPE_XDP);
    bpf_program__set_expected_attach_type(program, places[request->place]);
    if (request->frags)
        bpf_program__set_flags(program, bpf_program__flags(program) | BPF_F_XDP_HAS_FRAGS);
    if (request->bound) {
        bpf_program__set_flags(program, bpf_program__flags(program) | BPF_F_XDP_DEV_BOUND_ONLY);
        bpf_program__set_ifindex(program, device);
    }
    bpf_program__set_autoload(program, 1);
}

// libbpf takes foreign BTF by path only.
static int memory_file(const void *bytes, size_t size)
{
    int fd = memfd_create("types", MFD_CLOEXEC);
    if (fd >= 0 && write(fd, bytes, size) != (ssize_t)size) {
        close(fd);
        return -1;
    }
    return fd;
}

static void open_and_load(struct apus_object *o, const void *bytes, size_t size, const char *name,
                          const struct apus_program_request *requests, size_t count,
                          const struct apus_map_request *maps, size_t map_count,
                          const struct apus_target *target, const char *types, unsigned int device)
{
    LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = name, .btf_custom_path = types, .kconfig = target->settings);
    o->stage = APUS_STAGE_OPEN;
    o->object = bpf_object__open_mem(bytes, size, &options);
    if (!o->object) {
        o->error = -errno;
        return;
    }
    o->stage = APUS_STAGE_FIND;
    struct bpf_program *p;
    bpf_object__for_each_program(p, o->object)
        bpf_program__set_autoload(p, 0);
    for (size_t i = 0; i < count; i++) {
        o->programs[i] = bpf_object__find_program_by_name(o->object, requests[i].name);
        if (!o->programs[i]) {
            o->error = -ENOENT;
            return;
        }
        prepare(o->programs[i], &requests[i], device);
    }
    // A map that asks to be pinned by name would be pinned, or a stranger's reused.
    struct bpf_map *m;
    size_t place = 0;
    bpf_object__for_each_map(m, o->object) {
        bpf_map__set_pin_path(m, NULL);
        if (place < map_count) {
            bpf_map__set_autocreate(m, maps[place].create);
            if (maps[place].entries)
                bpf_map__set_max_entries(m, maps[place].entries);
        }
        place++;
    }
    // One log for all: the load ends with the first that is refused.
    for (size_t i = 0; i < count; i++)
        bpf_program__set_log_buf(o->programs[i], o->log, LOG_BYTES);
    o->stage = APUS_STAGE_LOAD;
    o->error = bpf_object__load(o->object);
    if (!o->error)
        o->stage = APUS_STAGE_DONE;
}

struct apus_object *apus_object_load(const void *bytes, size_t size, const char *object_name,
                                     const struct apus_program_request *programs, size_t count,
                                     const struct apus_map_request *maps, size_t map_count,
                                     const struct apus_target *target)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install_capture);
    struct apus_object *o = calloc(1, sizeof(*o));
    if (!o)
        return NULL;
    o->log = calloc(1, LOG_BYTES);
    o->programs = calloc(count, sizeof(*o->programs));
    if (!o->log || !o->programs) {
        free(o->programs);
        free(o->log);
        free(o);
        return NULL;
    }
    char path[32] = "";
    int types = target->types ? memory_file(target->types, target->types_size) : -1;
    if (types >= 0)
        snprintf(path, sizeof(path), "/proc/self/fd/%d", types);
    struct apus_sandbox sandbox = { .home = -1 };
    for (size_t i = 0; i < count && sandbox.home < 0 && !o->error; i++)
        if (programs[i].bound && (o->error = apus_sandbox_enter(&sandbox)))
            snprintf(o->messages, MESSAGES_BYTES, "no veth to verify a program against that asks its device about packets\n");
    current = o;
    if (!o->error)
        open_and_load(o, bytes, size, object_name, programs, count, maps, map_count, target, *path ? path : NULL, sandbox.device);
    current = NULL;
    if (sandbox.home >= 0)
        apus_sandbox_leave(&sandbox);
    if (types >= 0)
        close(types);
    return o;
}

int apus_fork(void) { return fork(); }

void apus_object_close(struct apus_object *o)
{
    bpf_object__close(o->object);
    free(o->programs);
    free(o->log);
    free(o);
}

enum apus_stage apus_object_stage(const struct apus_object *o) { return o->stage; }
int apus_object_error(const struct apus_object *o) { return o->error; }
const char *apus_object_verifier_log(const struct apus_object *o) { return o->log; }
const char *apus_object_messages(const struct apus_object *o) { return o->messages; }
int apus_object_program_fd(const struct apus_object *o) { return bpf_program__fd(o->programs[0]); }

const void *apus_object_instructions(const struct apus_object *o, size_t program, size_t *count)
{
    *count = bpf_program__insn_cnt(o->programs[program]);
    return bpf_program__insns(o->programs[program]);
}

size_t apus_object_map_count(const struct apus_object *o)
{
    size_t count = 0;
    struct bpf_map *m;
    bpf_object__for_each_map(m, o->object)
        count++;
    return count;
}

struct apus_map_info apus_object_map(const struct apus_object *o, size_t index)
{
    struct bpf_map *m = bpf_object__next_map(o->object, NULL);
    while (m && index--)
        m = bpf_object__next_map(o->object, m);
    if (!m)
        return (struct apus_map_info){ .name = "", .fd = -1 };
    return (struct apus_map_info){
        .name = bpf_map__name(m), .type = bpf_map__type(m), .key_size = bpf_map__key_size(m),
        .value_size = bpf_map__value_size(m), .max_entries = bpf_map__max_entries(m), .flags = bpf_map__map_flags(m),
        .fd = bpf_map__fd(m), .internal = bpf_map__is_internal(m),
    };
}

int apus_map_take(int fd, const void *key, void *value) { return bpf_map_lookup_and_delete_elem(fd, key, value); }
int apus_map_lookup(int fd, const void *key, void *value) { return bpf_map_lookup_elem(fd, key, value); }
int apus_map_update(int fd, const void *key, const void *value, uint64_t flags) { return bpf_map_update_elem(fd, key, value, flags); }
int apus_map_delete(int fd, const void *key) { return bpf_map_delete_elem(fd, key); }
int apus_map_next_key(int fd, const void *key, void *next) { return bpf_map_get_next_key(fd, key, next); }

int apus_test_run(int program_fd, const void *in, size_t in_size, void *out, uint32_t *out_size, uint32_t *verdict)
{
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = in, .data_size_in = (uint32_t)in_size, .data_out = out,
                .data_size_out = *out_size, .repeat = 1);
    int error = bpf_prog_test_run_opts(program_fd, &options);
    *out_size = options.data_size_out;
    *verdict = options.retval;
    return error;
}

int apus_test_repeat(int program_fd, const void *in, size_t in_size, uint32_t repeat, uint32_t *duration)
{
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = in, .data_size_in = (uint32_t)in_size, .repeat = (int)repeat);
    int error = bpf_prog_test_run_opts(program_fd, &options);
    *duration = options.duration;
    return error;
}

int apus_attach(int program_fd, unsigned int device)
{
    LIBBPF_OPTS(bpf_link_create_opts, options, .flags = XDP_FLAGS_DRV_MODE);
    return bpf_link_create(program_fd, (int)device, BPF_XDP, &options);
}

int apus_program_load(const void *instructions, size_t count, char *log, uint32_t log_size)
{
    LIBBPF_OPTS(bpf_prog_load_opts, options, .log_buf = log, .log_size = log_size, .log_level = 1);
    log[0] = 0;
    return bpf_prog_load(BPF_PROG_TYPE_XDP, "apus_test", "GPL", instructions, count, &options);
}

int apus_map_create(uint32_t type, uint32_t key_size, uint32_t value_size, uint32_t max_entries, uint32_t flags)
{
    LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = flags);
    return bpf_map_create(type, NULL, key_size, value_size, max_entries, &options);
}

struct drain {
    char *to;
    size_t room, used;
};

static int drain_one(void *context, void *data, size_t size)
{
    struct drain *d = context;
    uint32_t length = (uint32_t)size;
    if (d->room - d->used < size + 4)
        return -ENOSPC;
    memcpy(d->to + d->used, &length, 4);
    memcpy(d->to + d->used + 4, data, size);
    d->used += size + 4;
    return 0;
}

long apus_kernel_records(int fd, void *to, size_t room)
{
    struct drain d = { to, room, 0 };
    struct ring_buffer *ring = ring_buffer__new(fd, drain_one, &d, NULL);
    if (!ring)
        return -errno;
    int error = ring_buffer__consume(ring);
    ring_buffer__free(ring);
    return error < 0 ? error : (long)d.used;
}

void apus_close(int fd) { close(fd); }
