#include "apus_run.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

// One piece of output; counts what did not fit.
struct text {
    char *to;
    size_t room, size;
};

static void put(struct text *t, const char *from, size_t n)
{
    if (t->room > t->size) {
        size_t fits = t->room - t->size - 1;
        memcpy(t->to + t->size, from, n < fits ? n : fits);
    }
    t->size += n;
}

// %pI4, %pI6 and their lower-case forms print what the value points to; four or sixteen bytes are read.
static int address(struct text *t, const char *kind, uint64_t value, apus_string_reader read, const void *of)
{
    char out[INET6_ADDRSTRLEN];
    int family = kind[1] == '6' ? AF_INET6 : AF_INET;
    const char *from = read(value, of);
    if (from && kind[0] == 'I' && family == AF_INET6) {
        const uint8_t *b = (const uint8_t *)from;
        int n = 0;
        char full[40];
        for (int i = 0; i < 16; i += 2)
            n += snprintf(full + n, sizeof(full) - (size_t)n, i ? ":%02x%02x" : "%02x%02x", b[i], b[i + 1]);
        put(t, full, (size_t)n);
    } else if (from && inet_ntop(family, from, out, sizeof(out))) {
        put(t, out, strlen(out));
    } else {
        put(t, "(fault)", 7);
    }
    return 2;
}

// A pointer is printed as it is: there is no kernel here whose addresses were a secret.
static int pointer(struct text *t, const char *kind, uint64_t value, apus_string_reader read, const void *of)
{
    if ((kind[0] == 'I' || kind[0] == 'i') && (kind[1] == '4' || kind[1] == '6'))
        return address(t, kind, value, read, of);
    char out[24];
    put(t, out, (size_t)snprintf(out, sizeof(out), "%016llx", (unsigned long long)value));
    return kind[0] == 'K' || kind[0] == 'x' || kind[0] == 's' || kind[0] == 'S' || kind[0] == 'B' ? 1 : 0;
}

static int number(struct text *t, const char *spec, size_t spec_size, int longs, char kind, uint64_t value)
{
    char form[24], out[96];
    if (spec_size + 4 > sizeof(form))
        return -EINVAL;
    if (!longs)
        value = kind == 'd' || kind == 'i' ? (uint64_t)(int64_t)(int32_t)value : (uint32_t)value;
    memcpy(form, spec, spec_size);
    strcpy(form + spec_size, "ll");
    form[spec_size + 2] = kind;
    form[spec_size + 3] = 0;
    int n = snprintf(out, sizeof(out), form, (unsigned long long)value);
    put(t, out, (size_t)n < sizeof(out) ? (size_t)n : sizeof(out) - 1);
    return 0;
}

// As bpf_bprintf_prepare: flags and width, l or ll, then one of d i u x X c s p.
static int conversion(struct text *t, const char **at, const char *end, uint64_t value, apus_string_reader read,
                      const void *of)
{
    const char *start = *at, *p = start + 1;
    while (p < end && (*p == '0' || *p == '+' || *p == '-' || *p == ' '))
        p++;
    for (int digits = 0; p < end && *p >= '0' && *p <= '9'; p++)
        if (++digits > 2)
            return -EINVAL;
    size_t spec = (size_t)(p - start);
    int longs = 0;
    while (p < end && *p == 'l' && longs < 2)
        longs++, p++;
    if (p >= end)
        return -EINVAL;
    char kind = *p++;
    int result = 0;
    switch (kind) {
    case 'd': case 'i': case 'u': case 'x': case 'X':
        result = number(t, start, spec, longs, kind, value);
        break;
    case 'c': {
        char c = (char)value;
        put(t, &c, 1);
        break;
    }
    case 's': {
        const char *text = read(value, of);
        put(t, text ? text : "", text ? strnlen(text, 512) : 0);
        break;
    }
    case 'p':
        p += pointer(t, p < end ? p : "", value, read, of);
        break;
    default: return -EINVAL;
    }
    *at = p;
    return result;
}

long apus_format(char *to, size_t room, const char *format, size_t format_size, const uint64_t *values, size_t count,
                 apus_string_reader string, const void *of)
{
    const char *end = memchr(format, 0, format_size);
    if (!end)
        return -EINVAL;
#ifdef APUS_PLANTED
    if (apus_planted_bug == APUS_PLANTED_OVERREAD)
        end = format + format_size + 1;
#endif
    struct text t = { to, room, 0 };
    size_t used = 0;
    while (format < end) {
        if (*format != '%') {
            if ((unsigned char)*format >= 0x80)
                return -EINVAL;
            put(&t, format++, 1);
        } else if (format + 1 < end && format[1] == '%') {
            put(&t, format, 1);
            format += 2;
        } else {
            if (used >= count)
                return -EINVAL;
            int error = conversion(&t, &format, end, values[used++], string, of);
            if (error)
                return error;
        }
    }
    if (room)
        to[t.size < room ? t.size : room - 1] = 0;
    return (long)t.size;
}

static const char *trusted_string(uint64_t address, const void *of)
{
    (void)of;
    return (const char *)address;
}

static const char *no_string(uint64_t address, const void *of)
{
    (void)address;
    (void)of;
    return NULL;
}

long apus_print_to(uint64_t to, size_t room, uint64_t format, size_t format_size, uint64_t values, size_t count,
                   int checked)
{
    uint64_t copied[12];
    memcpy(copied, (const void *)values, count * sizeof(*copied));
    return apus_format((char *)to, room, (const char *)format, format_size, copied, count,
                       checked ? no_string : trusted_string, NULL);
}

long apus_print(uint64_t format, size_t format_size, uint64_t values, size_t count, int checked)
{
    char line[512];
    long size = apus_print_to((uint64_t)line, sizeof(line), format, format_size, values, count, checked);
    if (size >= 0)
        apus_trace_line(line, (size_t)size < sizeof(line) ? (size_t)size : sizeof(line) - 1);
    return size < 0 ? size : size + 1;      // the kernel counts the final zero
}

enum { LINES = 1024, LINE_BYTES = 512 };

// Lines in the order they were printed. One lock: printing is for finding errors, not for every packet.
static struct {
    uint32_t lock;
    uint64_t first, next, lost;     // first <= next, both count lines from the start
    uint16_t size[LINES];
    char text[LINES][LINE_BYTES];
} trace;

void apus_trace_line(const char *text, size_t size)
{
    if (size > LINE_BYTES - 1)
        size = LINE_BYTES - 1;
    apus_lock(&trace.lock);
    if (trace.next - trace.first == LINES) {
        trace.first++;
        trace.lost++;
    }
    memcpy(trace.text[trace.next % LINES], text, size);
    trace.size[trace.next++ % LINES] = (uint16_t)size;
    apus_unlock(&trace.lock);
}

size_t apus_trace_read(char *to, size_t room, uint64_t *lost)
{
    size_t used = 0;
    apus_lock(&trace.lock);
    while (trace.first < trace.next && trace.size[trace.first % LINES] + 1u <= room - used) {
        size_t size = trace.size[trace.first % LINES];
        memcpy(to + used, trace.text[trace.first % LINES], size);
        used += size;
        if (used == 0 || to[used - 1] != '\n')
            to[used++] = '\n';
        trace.first++;
    }
    *lost = trace.lost;
    trace.lost = 0;
    apus_unlock(&trace.lock);
    return used;
}
