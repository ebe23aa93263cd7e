// What a guest sends, receives and captures. The words of each job are in agent.c.
#define _GNU_SOURCE
#include "jobs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK_BYTES = 256 * 1024, FRAME_MAX_BYTES = 128 * 1024 };

const char *text(const struct words *w, const char *key) {
    size_t n = strlen(key);
    for (int i = 0; i < w->count; i++)
        if (!strncmp(w->word[i], key, n) && w->word[i][n] == '=') return w->word[i] + n + 1;
    return NULL;
}

uint64_t number(const struct words *w, const char *key, uint64_t otherwise) {
    const char *value = text(w, key);
    return value ? strtoull(value, NULL, 0) : otherwise;
}

// ---- contents: both ends work in chunks of one size, so that the hash does not depend on how TCP cut the stream

struct content { uint64_t state, hash, bytes; };

// xorshift64*: a word costs a few instructions, which under emulation is what counts.
static void generate(struct content *c, uint64_t *words, size_t count) {
    uint64_t s = c->state;
    for (size_t i = 0; i < count; i++) {
        s ^= s >> 12, s ^= s << 25, s ^= s >> 27;
        words[i] = s * 0x2545F4914F6CDD1D;
    }
    c->state = s;
}

// Sensitive to order, unlike the Internet checksum: swapped words must show.
static void hash(struct content *c, uint64_t *words, size_t bytes) {
    memset((char *)words + bytes, 0, -bytes & 7);
    uint64_t h = c->hash;
    for (size_t i = 0; i < (bytes + 7) / 8; i++) h = ((h ^ words[i]) * 0x9E3779B97F4A7C15) ^ (h >> 29);
    c->hash = h;
    c->bytes += bytes;
}

static uint64_t nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

// ---- the kinds. Each is prepare_KIND, in the agent, and run_KIND, in the child.

__attribute__((noreturn, format(printf, 2, 3))) static void finish(int out, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vdprintf(out, format, list);
    va_end(list);
    _exit(0);
}

static struct sockaddr_in peer(const struct words *w) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number(w, "port", 5000))};
    const char *to = text(w, "to");
    if (to) inet_pton(AF_INET, to, &a.sin_addr);
    return a;
}

static int bound(const struct words *w, int type) {
    struct sockaddr_in a = peer(w);
    int fd = socket(AF_INET, type, 0), on = 1, buffer = 8 << 20;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (type == SOCK_DGRAM) setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || (type == SOCK_STREAM && listen(fd, 1))) return close(fd), -1;
    return fd;
}

static int prepare_receive(const struct words *w) { return bound(w, SOCK_STREAM); }

static void run_receive(const struct words *w, int fd, int out, const char *path) {
    (void)w, (void)path;
    static uint64_t chunk[CHUNK_BYTES / 8];
    struct content c = {0};
    int from = accept(fd, NULL, NULL);
    uint64_t begin = nanoseconds();
    ssize_t n;
    while ((n = recv(from, chunk, sizeof chunk, MSG_WAITALL)) > 0) hash(&c, chunk, (size_t)n);
    if (n < 0) finish(out, "error receive after %lu bytes: %s", c.bytes, strerror(errno));
    finish(out, "ok bytes=%lu hash=%016lx nanoseconds=%lu", c.bytes, c.hash, nanoseconds() - begin);
}

static int prepare_send(const struct words *w) { (void)w; return socket(AF_INET, SOCK_STREAM, 0); }

static void run_send(const struct words *w, int fd, int out, const char *path) {
    (void)path;
    static uint64_t chunk[CHUNK_BYTES / 8];
    struct content c = {.state = number(w, "seed", 1) | 1};
    struct sockaddr_in to = peer(w);
    uint64_t left = number(w, "bytes", 1 << 20);
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) finish(out, "error connect: %s", strerror(errno));
    uint64_t begin = nanoseconds();
    while (left > 0) {
        size_t bytes = left < sizeof chunk ? left : sizeof chunk;
        generate(&c, chunk, (bytes + 7) / 8);
        hash(&c, chunk, bytes);
        for (size_t done = 0; done < bytes;) {
            ssize_t n = write(fd, (char *)chunk + done, bytes - done);
            if (n < 0) finish(out, "error send after %lu bytes: %s", c.bytes, strerror(errno));
            done += (size_t)n;
        }
        left -= bytes;
    }
    shutdown(fd, SHUT_WR);
    while (read(fd, chunk, sizeof chunk) > 0) {}   // the peer closes when it has read all
    finish(out, "ok bytes=%lu hash=%016lx nanoseconds=%lu", c.bytes, c.hash, nanoseconds() - begin);
}

// A numbered datagram: 8 bytes number, then the words the generator makes of it.
static void fill_datagram(uint64_t *words, uint64_t index, size_t bytes) {
    struct content c = {.state = index * 2 + 1};
    words[0] = index;
    generate(&c, words + 1, (bytes + 7) / 8 - 1);
}

static int prepare_udp_receive(const struct words *w) { return bound(w, SOCK_DGRAM); }

static void run_udp_receive(const struct words *w, int fd, int out, const char *path) {
    (void)path;
    static uint64_t got[65536 / 8], want[65536 / 8 + 1];
    uint64_t count = number(w, "count", 1), distinct = 0, repeated = 0, wrong = 0;
    uint8_t *seen = calloc(count, 1);
    struct timeval patience = {.tv_sec = 10};
    while (distinct + wrong < count) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        ssize_t n = recv(fd, got, sizeof got, 0);
        if (n < 0) break;
        patience.tv_sec = 2;
        uint64_t index = got[0];
        fill_datagram(want, index, (size_t)n);
        if (n < 8 || index >= count || memcmp(got, want, (size_t)n)) wrong++;
        else if (seen[index]++) repeated++;
        else distinct++;
    }
    finish(out, "ok distinct=%lu repeated=%lu wrong=%lu", distinct, repeated, wrong);
}

static int prepare_udp_send(const struct words *w) { (void)w; return socket(AF_INET, SOCK_DGRAM, 0); }

static void run_udp_send(const struct words *w, int fd, int out, const char *path) {
    (void)path;
    static uint64_t datagram[65536 / 8 + 1];
    struct sockaddr_in to = peer(w);
    uint64_t count = number(w, "count", 1), sent = 0, size = number(w, "size", 1000);
    if (size < 8 || size > 65507) finish(out, "error size is 8 to 65507");
    for (uint64_t i = 0; i < count; i++) {
        fill_datagram(datagram, i, size);
        sent += sendto(fd, datagram, size, 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)size;
        if (i % 32 == 31) usleep(1000);   // loss is to be the forwarder's, not the socket buffer's
    }
    finish(out, "ok sent=%lu", sent);
}

// Received packets only, with the virtio header the driver was given. Receive offloads of the guest's own (GRO)
// merge packets before this socket sees them: whoever counts superframes turns rx-gro off first.
static int prepare_capture(const struct words *w) {
    const char *dev = text(w, "dev");
    int on = 1, buffer = 64 << 20, fd = socket(AF_PACKET, SOCK_RAW, 0);
    struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL),
                            .sll_ifindex = (int)if_nametoindex(dev ? dev : "eth0")};
    if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on)
        || setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on)
        || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer)
        || bind(fd, (struct sockaddr *)&a, sizeof a)) return -1;
    return fd;
}

static void run_capture(const struct words *w, int fd, int out, const char *path) {
    static uint8_t record[4 + FRAME_MAX_BYTES];
    uint64_t packets = number(w, "packets", 100), every = number(w, "every", 1), larger = number(w, "larger", 0);
    uint64_t protocol = number(w, "proto", 0), eligible = 0, kept = 0, bytes = 0;
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    while (kept < packets) {
        ssize_t n = recv(fd, record + 4, sizeof record - 4, 0);
        if (n < 0) finish(out, "error capture: %s", strerror(errno));
        const uint8_t *frame = record + 4 + sizeof(struct virtio_net_hdr);
        size_t length = (size_t)n - sizeof(struct virtio_net_hdr);
        if (length < larger || (protocol && (length < 34 || frame[23] != protocol))) continue;
        if (eligible++ % every) continue;
        uint32_t count = (uint32_t)n;
        memcpy(record, &count, 4);
        if (write(file, record, 4 + count) != 4 + (ssize_t)count) finish(out, "error capture: %s", strerror(errno));
        kept++, bytes += count;
    }
    finish(out, "ok packets=%lu stored=%lu", kept, bytes);
}

static const struct kind kinds[] = {
    {"receive", prepare_receive, run_receive},
    {"send", prepare_send, run_send},
    {"udp-receive", prepare_udp_receive, run_udp_receive},
    {"udp-send", prepare_udp_send, run_udp_send},
    {"capture", prepare_capture, run_capture},
};

const struct kind *kind_named(const char *name) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].name, name)) return &kinds[i];
    return NULL;
}
