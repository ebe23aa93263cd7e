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
static size_t page_size;

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

struct mapping {
    uintptr_t from, to;
};

// One line of /proc/self/maps: "start-end rw-s offset device inode path".
static bool is_shared_there(const char *line, const char *end, uintptr_t address, struct mapping *here) {
    if (!parse_hex(&line, end, &here->from) || line == end || *line++ != '-') return false;
    if (!parse_hex(&line, end, &here->to) || end - line < 5 || *line++ != ' ') return false;
    return address >= here->from && address < here->to && memcmp(line, "rw-s", 4) == 0;
}

// Whether the address lies in memory shared with others: what a peer cut short, and not a library or a file of our own.
static bool is_shared(uintptr_t address, struct mapping *here) {
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    char text[4096];
    size_t kept = 0;
    bool found = false;
    ssize_t got;
    while (!found && (got = read(fd, text + kept, sizeof text - kept)) > 0) {
        const char *line = text, *end = text + kept + got, *newline;
        while (!found && (newline = memchr(line, '\n', (size_t)(end - line))) != NULL) {
            found = is_shared_there(line, newline, address, here);
            line = newline + 1;
        }
        kept = (size_t)(end - line);
        if (kept == sizeof text) kept = 0; // no line is that long
        memmove(text, line, kept);
    }
    close(fd);
    return found;
}

// A mapping of hugepages takes whole ones only; nothing but the mapping is touched.
static bool put_zeros(uintptr_t address, const struct mapping *here) {
    const size_t sizes[] = {page_size, (size_t)1 << 21, (size_t)1 << 30};
    for (size_t number = 0; number < sizeof sizes / sizeof *sizes; number++) {
        size_t size = sizes[number];
        uintptr_t start = address & ~(size - 1);
        if (start < here->from || here->to - start < size) return false;
        void *page = (void *)start;
        if (mmap(page, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page) return true;
    }
    return false;
}

static void bus_error(int number, siginfo_t *info, void *context) {
    (void)context;
    int before = errno;
    uintptr_t address = (uintptr_t)info->si_addr;
    struct mapping here;
    bool is_peers = info->si_code == BUS_ADRERR && rte_mem_virt2memseg(info->si_addr, NULL) == NULL && is_shared(address, &here);
    if (is_peers && put_zeros(address, &here)) {
        atomic_store(&lost_address, address);
        atomic_fetch_add(&lost_pages, 1);
    } else {
        // The instruction faults again, and that ends the process.
        signal(number, SIG_DFL);
    }
    errno = before;
}

int apus_survive_lost_memory(void) {
    page_size = (size_t)sysconf(_SC_PAGESIZE);
    struct sigaction action = {.sa_sigaction = bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, NULL) == 0 ? 0 : -errno;
}

uint64_t apus_lost_pages(uint64_t *address) {
    uint64_t pages = atomic_load(&lost_pages);
    *address = atomic_load(&lost_address);
    return pages;
}
