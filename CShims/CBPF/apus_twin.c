#define _GNU_SOURCE
#include "apus_twin.h"
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

// Every function is int f(void): static functions are verified call by call, whatever their type says.
static const struct {
    struct btf_header header;
    struct { struct btf_type type; uint32_t encoding; } integer;
    struct btf_type prototype, function;
    char strings[8];
} types = {
    .header = { .magic = BTF_MAGIC, .version = BTF_VERSION, .hdr_len = sizeof(struct btf_header), .type_len = 40, .str_off = 40, .str_len = 8 },
    .integer = { { .name_off = 1, .info = BTF_KIND_INT << 24, .size = 4 }, .encoding = BTF_INT_SIGNED << 24 | 32 },
    .prototype = { .info = BTF_KIND_FUNC_PROTO << 24, .type = 1 },
    .function = { .name_off = 5, .info = BTF_KIND_FUNC << 24 | BTF_FUNC_STATIC, .type = 2 },
    .strings = "\0int\0f\0",
};
_Static_assert(sizeof(types) == sizeof(struct btf_header) + 40 + 8, "the kernel counts every byte");

static int types_fd;

static void load_types(void)
{
    types_fd = bpf_btf_load(&types, sizeof(types), NULL);
}

int apus_twin_load(const void *instructions, size_t count, const uint32_t *functions, size_t function_count, char *log, uint32_t log_size)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load_types);
    if (types_fd < 0)
        return types_fd;
    struct bpf_func_info info[64];
    if (function_count > sizeof(info) / sizeof(info[0]))
        return -E2BIG;
    for (size_t i = 0; i < function_count; i++)
        info[i] = (struct bpf_func_info){ .insn_off = functions[i], .type_id = 3 };
    LIBBPF_OPTS(bpf_prog_load_opts, options, .log_buf = log_size ? log : NULL, .log_size = log_size, .log_level = log_size ? 1 : 0,
                .prog_btf_fd = (uint32_t)types_fd, .func_info = info, .func_info_cnt = (uint32_t)function_count,
                .func_info_rec_size = sizeof(info[0]));
    if (log_size)
        log[0] = 0;
    return bpf_prog_load(BPF_PROG_TYPE_XDP, "apus_twin", "GPL", instructions, count, &options);
}

int apus_twin_map_of_maps(uint32_t max_entries, int inner)
{
    LIBBPF_OPTS(bpf_map_create_opts, options, .inner_map_fd = (uint32_t)inner);
    return bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, NULL, 4, 4, max_entries, &options);
}

long apus_twin_ids(char kind, uint32_t *ids, size_t room)
{
    uint32_t id = 0;
    long count = 0;
    for (;;) {
        int error = kind == 'p' ? bpf_prog_get_next_id(id, &id) : kind == 'm' ? bpf_map_get_next_id(id, &id)
            : kind == 'b' ? bpf_btf_get_next_id(id, &id) : bpf_link_get_next_id(id, &id);
        if (error)
            return error == -ENOENT ? count : error;
        if ((size_t)count < room)
            ids[count] = id;
        count++;
    }
}

int apus_twin_run(int program, const void *in, size_t in_size, uint32_t metadata, uint32_t device, void *out, uint32_t *out_size,
                  uint32_t *verdict)
{
    struct xdp_md context = { .data = metadata, .data_end = (uint32_t)in_size, .ingress_ifindex = device };
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = in, .data_size_in = (uint32_t)in_size, .data_out = out,
                .data_size_out = *out_size, .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = 1);
    int error = bpf_prog_test_run_opts(program, &options);
    *out_size = options.data_size_out;
    *verdict = options.retval;
    return error;
}

void *apus_twin_pin(void)
{
    cpu_set_t *before = malloc(sizeof(*before)), one;
    int cpu = sched_getcpu();
    CPU_ZERO(&one);
    if (before && cpu >= 0 && sched_getaffinity(0, sizeof(*before), before) == 0) {
        CPU_SET(cpu, &one);
        if (sched_setaffinity(0, sizeof(one), &one) == 0)
            return before;
    }
    free(before);
    return NULL;
}

void apus_twin_unpin(void *pinned)
{
    if (pinned)
        sched_setaffinity(0, sizeof(cpu_set_t), pinned);
    free(pinned);
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define APUS_SANITIZED 1
void __sanitizer_set_report_path(const char *path);
#endif
#endif

#ifdef APUS_SANITIZED
_Bool apus_is_sanitized(void) { return 1; }
void apus_report_here(void) { __sanitizer_set_report_path("stderr"); }
#else
_Bool apus_is_sanitized(void) { return 0; }
void apus_report_here(void) {}
#endif
