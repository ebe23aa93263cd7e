// The only program of a test guest besides busybox, and its PID 1.
//
// One line in, one line out, over a virtio-serial port: "ok KEY=VALUE ..." or "error TEXT". Where an answer has
// bytes=N, N raw bytes follow the line. Network set-up is left to busybox through "run"; the agent itself does what
// busybox cannot: device features, TCP with hashed contents, numbered UDP, capture with the virtio header.
//
//   run COMMAND                       shell; ok status=N bytes=N, then its output
//   feature DEV [NAME on|off]         the kernel's device features, as in `ethtool -k`
//   start receive port=P              one TCP connection, to its end
//   start send to=A port=P bytes=N seed=S
//   start udp-receive port=P count=N  until all numbers came or nothing for two seconds
//   start udp-send to=A port=P count=N size=B
//   start capture dev=D packets=N [every=K] [larger=B] [proto=6|17]
//   wait job=J seconds=S              the job's result line
//   fetch job=J                       what a capture stored: { le32 length, virtio_net_hdr (10 bytes), frame }*
//   kill job=J                        also where it is done
//   off                               power off
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 8192, WORDS_MAX = 16, JOBS_MAX = 32, CHUNK_BYTES = 256 * 1024, FRAME_MAX_BYTES = 128 * 1024 };

static int port = -1;   // the command channel

// A job is a forked child; its result line comes through a pipe, so that a child that dies is a result too.
static struct job { pid_t pid; int result; } jobs[JOBS_MAX];

// ---- lines

struct words { int count; char *word[WORDS_MAX]; };

static void put(const void *bytes, size_t count) {
    for (const char *at = bytes; count > 0;) {
        ssize_t n = write(port, at, count);
        if (n > 0) at += n, count -= (size_t)n;
        else if (n < 0 && errno != EINTR && errno != EAGAIN) return;   // the host hung up
    }
}

__attribute__((format(printf, 1, 2))) static void answer(const char *format, ...) {
    static char line[LINE_MAX_BYTES];
    va_list list;
    va_start(list, format);
    int n = vsnprintf(line, sizeof line - 1, format, list);
    va_end(list);
    if (n > (int)sizeof line - 2) n = sizeof line - 2;
    line[n] = '\n';
    put(line, (size_t)n + 1);
}

static void fail(const char *what) { answer("error %s: %s", what, strerror(errno)); }

static const char *text(const struct words *w, const char *key) {
    size_t n = strlen(key);
    for (int i = 0; i < w->count; i++)
        if (!strncmp(w->word[i], key, n) && w->word[i][n] == '=') return w->word[i] + n + 1;
    return NULL;
}

static uint64_t number(const struct words *w, const char *key, uint64_t otherwise) {
    const char *value = text(w, key);
    return value ? strtoull(value, NULL, 0) : otherwise;
}

static struct words split(char *line) {
    struct words w = {0};
    for (char *rest, *s = strtok_r(line, " ", &rest); s && w.count < WORDS_MAX; s = strtok_r(NULL, " ", &rest))
        w.word[w.count++] = s;
    return w;
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

// ---- jobs. prepare_* runs in the agent, so that a "receive" listens before its "ok"; run_* in the child.

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

static const struct kind {
    const char *name;
    int (*prepare)(const struct words *);
    void (*run)(const struct words *, int fd, int out, const char *path);
} kinds[] = {
    {"receive", prepare_receive, run_receive},
    {"send", prepare_send, run_send},
    {"udp-receive", prepare_udp_receive, run_udp_receive},
    {"udp-send", prepare_udp_send, run_udp_send},
    {"capture", prepare_capture, run_capture},
};

static void job_path(char path[32], int job) { snprintf(path, 32, "/tmp/job-%d", job); }

static struct job *job_of(const struct words *w) {
    uint64_t job = number(w, "job", JOBS_MAX);
    return job < JOBS_MAX && jobs[job].pid ? &jobs[job] : NULL;
}

// A job's number is free again after "wait" gave its result; its file stays until the next job of that number.
static void job_forget(struct job *job) {
    kill(job->pid, SIGKILL);
    waitpid(job->pid, NULL, 0);
    close(job->result);
    job->pid = 0;
}

static void command_start(const struct words *w) {
    const struct kind *kind = NULL;
    for (size_t i = 0; w->count > 1 && i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].name, w->word[1])) kind = &kinds[i];
    int job = 0, ends[2];
    while (job < JOBS_MAX && jobs[job].pid) job++;
    if (!kind || job == JOBS_MAX) return answer("error no such kind of job, or too many jobs");
    int fd = kind->prepare(w);
    if (fd < 0) return fail(w->word[1]);
    if (pipe2(ends, O_CLOEXEC)) return fail("pipe");
    char path[32];
    job_path(path, job);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        kind->run(w, fd, ends[1], path);
        _exit(1);
    }
    close(fd);
    close(ends[1]);
    jobs[job] = (struct job){pid, ends[0]};
    answer("ok job=%d", job);
}

static void command_wait(const struct words *w) {
    static char line[LINE_MAX_BYTES];
    struct job *job = job_of(w);
    if (!job) return answer("error no such job");
    struct pollfd ready = {.fd = job->result, .events = POLLIN};
    if (poll(&ready, 1, (int)number(w, "seconds", 10) * 1000) <= 0) return answer("error job is not done");
    ssize_t n = read(job->result, line, sizeof line - 1);
    job_forget(job);
    if (n <= 0) return answer("error job died");
    answer("%.*s", (int)n, line);
}

static void command_fetch(const struct words *w) {
    char path[32], part[65536];
    struct stat status;
    job_path(path, (int)number(w, "job", 0));
    int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &status)) return fail(path);
    answer("ok bytes=%ld", (long)status.st_size);
    for (off_t left = status.st_size; left > 0;) {
        ssize_t n = read(file, part, left < (off_t)sizeof part ? (size_t)left : sizeof part);
        put(part, (size_t)n);
        left -= n;
    }
    close(file);
    unlink(path);
}

// ---- the rest

static void command_run(char *command) {
    static char output[1 << 20];
    size_t bytes = 0, n;
    FILE *shell = popen(command, "r");
    while (shell && (n = fread(output + bytes, 1, sizeof output - bytes, shell)) > 0) bytes += n;
    int status = shell ? pclose(shell) : -1;
    answer("ok status=%d bytes=%zu", WIFEXITED(status) ? WEXITSTATUS(status) : 255, bytes);
    put(output, bytes);
}

static int ethtool(const char *dev, void *request) {
    struct ifreq ifr = {.ifr_data = request};
    static int fd = -1;
    if (fd < 0) fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", dev);
    return ioctl(fd, SIOCETHTOOL, &ifr);
}

// Device features by the kernel's names, 32 to a block (linux/ethtool.h, ETHTOOL_GFEATURES).
static void command_feature(const struct words *w) {
    enum { BLOCKS = 4, NAMES = BLOCKS * 32 };
    static struct { struct ethtool_gstrings head; char name[NAMES][ETH_GSTRING_LEN]; } strings;
    struct { struct ethtool_sset_info head; uint32_t count; } set = {{.cmd = ETHTOOL_GSSET_INFO}, 0};
    struct { struct ethtool_gfeatures head; struct ethtool_get_features_block block[BLOCKS]; } get;
    struct { struct ethtool_sfeatures head; struct ethtool_set_features_block block[BLOCKS]; } change;
    const char *dev = w->count > 1 ? w->word[1] : "eth0";
    set.head.sset_mask = 1 << ETH_SS_FEATURES;
    if (ethtool(dev, &set)) return fail(dev);
    uint32_t count = set.count < NAMES ? set.count : NAMES, blocks = (count + 31) / 32;
    strings.head = (struct ethtool_gstrings){ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count, };
    if (ethtool(dev, &strings)) return fail("feature names");

    if (w->count == 4) {
        memset(&change, 0, sizeof change);
        change.head = (struct ethtool_sfeatures){ETHTOOL_SFEATURES, blocks, };
        uint32_t i = 0;
        while (i < count && strcmp(strings.name[i], w->word[2])) i++;
        if (i == count) return answer("error no feature %s", w->word[2]);
        change.block[i / 32].valid = 1u << i % 32;
        change.block[i / 32].requested = strcmp(w->word[3], "on") ? 0 : 1u << i % 32;
        if (ethtool(dev, &change) < 0) return fail("set feature");
    }
    memset(&get, 0, sizeof get);
    get.head = (struct ethtool_gfeatures){ETHTOOL_GFEATURES, blocks, };
    if (ethtool(dev, &get)) return fail("features");
    static char line[LINE_MAX_BYTES];
    size_t used = 0;
    for (uint32_t i = 0; i < count && used < sizeof line - 64; i++)
        if (strings.name[i][0])
            used += (size_t)snprintf(line + used, sizeof line - used, " %s=%s", strings.name[i],
                                     get.block[i / 32].active >> i % 32 & 1 ? "on" : "off");
    answer("ok%s", line);
}

static void obey(char *line) {
    if (!strncmp(line, "run ", 4)) return command_run(line + 4);
    struct words w = split(line);
    const char *verb = w.count ? w.word[0] : "";
    struct job *job;
    if (!strcmp(verb, "start")) command_start(&w);
    else if (!strcmp(verb, "wait")) command_wait(&w);
    else if (!strcmp(verb, "fetch")) command_fetch(&w);
    else if (!strcmp(verb, "feature")) command_feature(&w);
    else if (!strcmp(verb, "kill")) {
        if ((job = job_of(&w))) job_forget(job);
        answer("ok");
    }
    else if (!strcmp(verb, "off")) answer("ok"), reboot(RB_POWER_OFF);
    else answer("error what is '%s'?", verb);
}

// The builder wrote the modules' paths in the order of their dependencies.
static void load_modules(void) {
    char path[256];
    FILE *list = fopen("/modules", "r");
    while (list && fscanf(list, "%255s", path) == 1) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0)) printf("agent: %s: %s\n", path, strerror(errno));
        close(fd);
    }
}

static int open_port(void) {
    for (int attempt = 0; attempt < 500; attempt++, usleep(10000)) {
        int fd = open("/dev/vport0p1", O_RDWR | O_CLOEXEC);
        if (fd >= 0) return fd;
    }
    return -1;
}

int main(void) {
    static char line[LINE_MAX_BYTES];
    struct utsname kernel;
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sys", "/sys", "sysfs", 0, NULL);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    mount("tmp", "/tmp", "tmpfs", 0, NULL);
    setvbuf(stdout, NULL, _IONBF, 0);
    signal(SIGPIPE, SIG_IGN);
    setenv("PATH", "/bin", 1);
    load_modules();
    port = open_port();
    if (port < 0) printf("agent: no virtio-serial port\n"), reboot(RB_POWER_OFF);
    uname(&kernel);
    answer("hello kernel=%s", kernel.release);

    for (size_t used = 0;;) {
        ssize_t n = read(port, line + used, 1);
        if (n <= 0) {   // nobody holds the other end just now
            usleep(10000);
        } else if (line[used] == '\n') {
            line[used] = 0;
            obey(line);
            used = 0;
        } else if (used < sizeof line - 2) {
            used++;
        }
    }
}
