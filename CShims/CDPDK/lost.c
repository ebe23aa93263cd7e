#include "CDPDK.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_memory.h>

static _Atomic uint64_t lost_pages;
static _Atomic uintptr_t lost_address;

static bool parse_hex(const char **at, const char *end, uintptr_t *value) {
    const char *start = *at;
    uintptr_t result = 0;
    for (; *at < end; (*at)++) {
        char c = **at;
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) break;
        result = result << 4 | (uintptr_t)digit;
    }
    *value = result;
    return *at > start;
}

// One line of /proc/self/maps: "start-end rw-s offset device inode path".
static bool is_shared_there(const char *line, const char *end, uintptr_t address) {
    uintptr_t from, to;
    if (!parse_hex(&line, end, &from) || line == end || *line++ != '-') return false;
    if (!parse_hex(&line, end, &to) || end - line < 5 || *line++ != ' ') return false;
    return address >= from && address < to && memcmp(line, "rw-s", 4) == 0;
}

// Whether the address lies in memory shared with others: what a peer cut short, and not a library or a file of our own.
static bool is_shared(uintptr_t address) {
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    char text[4096];
    size_t kept = 0;
    bool found = false;
    ssize_t got;
    while (!found && (got = read(fd, text + kept, sizeof text - kept)) > 0) {
        const char *line = text, *end = text + kept + got, *newline;
        while (!found && (newline = memchr(line, '\n', (size_t)(end - line))) != NULL) {
            found = is_shared_there(line, newline, address);
            line = newline + 1;
        }
        kept = (size_t)(end - line);
        if (kept == sizeof text) kept = 0; // no line is that long
        memmove(text, line, kept);
    }
    close(fd);
    return found;
}

// A mapping of hugepages takes whole ones only.
static bool put_zeros(uintptr_t address) {
    static const int shifts[] = {12, 21, 30};
    for (size_t number = 0; number < sizeof shifts / sizeof *shifts; number++) {
        size_t size = (size_t)1 << shifts[number];
        void *page = (void *)(address & ~(size - 1));
        if (mmap(page, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page) return true;
    }
    return false;
}

static void bus_error(int number, siginfo_t *info, void *context) {
    (void)context;
    int before = errno;
    uintptr_t address = (uintptr_t)info->si_addr;
    bool is_peers = info->si_code == BUS_ADRERR && rte_mem_virt2memseg(info->si_addr, NULL) == NULL && is_shared(address);
    if (is_peers && put_zeros(address)) {
        atomic_store(&lost_address, address);
        atomic_fetch_add(&lost_pages, 1);
    } else {
        // The instruction faults again, and that ends the process.
        signal(number, SIG_DFL);
    }
    errno = before;
}

int apus_survive_lost_memory(void) {
    struct sigaction action = {.sa_sigaction = bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, NULL) == 0 ? 0 : -errno;
}

uint64_t apus_lost_pages(uint64_t *address) {
    uint64_t pages = atomic_load(&lost_pages);
    *address = atomic_load(&lost_address);
    return pages;
}
