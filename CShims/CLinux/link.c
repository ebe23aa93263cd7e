#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// linux/if_link.h of Debian 12 has it; the number is fixed since Linux 2.6.
_Static_assert(IFLA_GSO_MAX_SIZE == 41, "IFLA_GSO_MAX_SIZE");

struct link_request {
    struct nlmsghdr header;
    struct ifinfomsg link;
    struct rtattr attribute;
    uint32_t value;
};

// Sends one RTM_NEWLINK and waits for the kernel's answer.
static int change_link(uint32_t index, unsigned flags, unsigned short attribute, uint32_t value) {
    struct link_request request = {
        .header = {.nlmsg_type = RTM_NEWLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
                   .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg))},
        .link = {.ifi_family = AF_UNSPEC, .ifi_index = (int)index, .ifi_flags = flags, .ifi_change = flags},
        .attribute = {.rta_type = attribute, .rta_len = RTA_LENGTH(sizeof(uint32_t))},
        .value = value,
    };
    if (attribute) request.header.nlmsg_len += RTA_SPACE(sizeof(uint32_t));
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0) return -errno;
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char rest[1024];
    } answer;
    ssize_t n = send(fd, &request, request.header.nlmsg_len, 0);
    if (n >= 0) n = recv(fd, &answer, sizeof answer, 0);
    int status = n < 0 ? -errno : n < (ssize_t)NLMSG_LENGTH(sizeof answer.error.error) ? -EIO : answer.error.error;
    close(fd);
    return status;
}

int apus_link_index(const char *name, uint32_t *index) {
    *index = if_nametoindex(name);
    return *index == 0 ? -errno : 0;
}

int apus_link_set_up(uint32_t index) { return change_link(index, IFF_UP, 0, 0); }
int apus_link_set_mtu(uint32_t index, uint32_t mtu) { return change_link(index, 0, IFLA_MTU, mtu); }
int apus_link_set_gso_max_size(uint32_t index, uint32_t bytes) { return change_link(index, 0, IFLA_GSO_MAX_SIZE, bytes); }
int apus_link_set_netns(uint32_t index, int netns_fd) { return change_link(index, 0, IFLA_NET_NS_FD, (uint32_t)netns_fd); }

int apus_enter_netns(int fd) { return setns(fd, CLONE_NEWNET) < 0 ? -errno : 0; }

int apus_current_netns(void) {
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}
