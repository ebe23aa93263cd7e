// What loading a program asks of the system besides libbpf: a device to verify against, and packed files.
#define _GNU_SOURCE
#include "apus_object.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

// One rtnetlink message, built up in place.
struct message {
    struct nlmsghdr header;
    struct ifinfomsg link;
    char attributes[256];
};

static struct rtattr *attribute(struct message *m, unsigned short type, const void *data, size_t size)
{
    struct rtattr *a = (struct rtattr *)((char *)m + NLMSG_ALIGN(m->header.nlmsg_len));
    a->rta_type = type;
    a->rta_len = RTA_LENGTH(size);
    if (size)
        memcpy(RTA_DATA(a), data, size);
    m->header.nlmsg_len = NLMSG_ALIGN(m->header.nlmsg_len) + RTA_ALIGN(a->rta_len);
    return a;
}

static void close_attribute(struct message *m, struct rtattr *a)
{
    a->rta_len = (unsigned short)((char *)m + m->header.nlmsg_len - (char *)a);
}

static int make_veth(const char *name)
{
    struct message m = { .header = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)), .nlmsg_type = RTM_NEWLINK,
                                     .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK } };
    attribute(&m, IFLA_IFNAME, name, strlen(name) + 1);
    struct rtattr *info = attribute(&m, IFLA_LINKINFO, NULL, 0);
    attribute(&m, IFLA_INFO_KIND, "veth", 4);
    close_attribute(&m, info);
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return -errno;
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char rest[512];
    } reply;
    int error = send(fd, &m, m.header.nlmsg_len, 0) < 0 || recv(fd, &reply, sizeof(reply), 0) < (ssize_t)sizeof(reply.header) + 4
        ? -errno : reply.error.error;
    close(fd);
    return error;
}

int apus_sandbox_enter(struct apus_sandbox *sandbox)
{
    sandbox->home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (sandbox->home < 0)
        return -errno;
    int error = unshare(CLONE_NEWNET) ? -errno : make_veth("apus-verify");
    sandbox->device = error ? 0 : if_nametoindex("apus-verify");
    if (!error && !sandbox->device)
        error = -ENODEV;
    if (error) {
        apus_sandbox_leave(sandbox);
        sandbox->home = -1;
    }
    return error;
}

// The namespace goes when nobody is in it, and the pair with it.
void apus_sandbox_leave(struct apus_sandbox *sandbox)
{
    if (setns(sandbox->home, CLONE_NEWNET))
        abort();    // a thread in the wrong namespace must not go on
    close(sandbox->home);
}

char *apus_read_packed(const char *path, size_t *size)
{
    enum { LIMIT = 16 << 20 };  // a configuration has 300 KiB
    gzFile file = gzopen(path, "re");
    if (!file)
        return NULL;
    char *text = malloc(LIMIT);
    int used = text ? gzread(file, text, LIMIT) : -1;
    gzclose(file);
    if (used < 0) {
        free(text);
        return NULL;
    }
    *size = (size_t)used;
    return text;
}

int apus_pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (cpu < 0 || cpu == i)
            CPU_SET(i, &set);
    return sched_setaffinity(0, sizeof(set), &set);
}
