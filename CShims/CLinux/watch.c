#include "CLinux.h"

#include <errno.h>
#include <sys/epoll.h>

int apus_watch_open(void) {
    int watch = epoll_create1(EPOLL_CLOEXEC);
    return watch < 0 ? -errno : watch;
}

int apus_watch_add(int watch, int fd, uint64_t bits) {
    // Level-triggered: what is left unread is told again.
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = bits};
    return epoll_ctl(watch, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

uint64_t apus_watch_look(int watch) {
    struct epoll_event events[64];
    int count = epoll_wait(watch, events, 64, 0);
    uint64_t bits = 0;
    for (int i = 0; i < count; i++) bits |= events[i].data.u64;
    return bits;
}
