// The only program of a test guest besides busybox, and its PID 1.
//
// One line in, one line out, over a virtio-serial port: "ok KEY=VALUE ..." or "error TEXT". The bytes=N of an
// answer to "run" and "fetch" follow it raw. Network set-up is left to busybox through "run"; the agent itself does what
// busybox cannot: device features, TCP with hashed contents, numbered UDP, capture with the virtio header.
//
//   run COMMAND                       shell; ok status=N bytes=N, then its output
//   feature DEV [NAME on|off]         the kernel's device features, as in `ethtool -k`
//   xdp DEV on|off                    attaches a program that only passes, natively, or takes it away
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
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
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
#include <unistd.h>

#include "jobs.h"

enum { LINE_MAX_BYTES = 8192, JOBS_MAX = 32 };

static int port = -1;   // the command channel

// A job is a forked child; its result line comes through a pipe, so that a child that dies is a result too.
static struct job { pid_t pid; int result; } jobs[JOBS_MAX];

// ---- lines

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

static struct words split(char *line) {
    struct words w = {0};
    for (char *rest, *s = strtok_r(line, " ", &rest); s && w.count < WORDS_MAX; s = strtok_r(NULL, " ", &rest))
        w.word[w.count++] = s;
    return w;
}

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
    const struct kind *kind = w->count > 1 ? kind_named(w->word[1]) : NULL;
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

// r0 = XDP_PASS; exit. A descriptor, or -1.
static int load_pass(void) {
    static const struct bpf_insn code[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = XDP_PASS}, {.code = BPF_JMP | BPF_EXIT}};
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.prog_type = BPF_PROG_TYPE_XDP;
    attr.insns = (uint64_t)(uintptr_t)code;
    attr.insn_cnt = sizeof code / sizeof *code;
    attr.license = (uint64_t)(uintptr_t)"GPL";
    return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
}

// RTM_SETLINK with IFLA_XDP { IFLA_XDP_FD, IFLA_XDP_FLAGS }; a descriptor of -1 detaches. 0, or -1 and errno.
static int attach(const char *dev, int32_t program) {
    struct {
        struct nlmsghdr head;
        struct ifinfomsg link;
        struct rtattr xdp, fd_head;
        int32_t fd;
        struct rtattr flags_head;
        uint32_t flags;
    } request = {
        {.nlmsg_len = sizeof request, .nlmsg_type = RTM_SETLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        {.ifi_family = AF_UNSPEC, .ifi_index = (int)if_nametoindex(dev)},
        {RTA_LENGTH(16), IFLA_XDP | NLA_F_NESTED}, {RTA_LENGTH(4), IFLA_XDP_FD}, program,
        {RTA_LENGTH(4), IFLA_XDP_FLAGS}, XDP_FLAGS_DRV_MODE,
    };
    struct { struct nlmsghdr head; struct nlmsgerr error; char rest[512]; } reply;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    ssize_t n = send(fd, &request, sizeof request, 0);
    if (n > 0) n = recv(fd, &reply, sizeof reply, 0);
    close(fd);
    if (n <= 0) return -1;
    errno = -reply.error.error;
    return errno ? -1 : 0;
}

static void command_xdp(const struct words *w) {
    if (w->count != 3) return answer("error xdp DEV on|off");
    int program = -1;
    if (!strcmp(w->word[2], "on") && (program = load_pass()) < 0) return fail("bpf");
    int status = attach(w->word[1], program);
    if (status) fail("attach");
    else answer("ok");
    if (program >= 0) close(program);   // the device holds it
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
    else if (!strcmp(verb, "xdp")) command_xdp(&w);
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
