#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

// Linux 6.2; Debian 12's headers are of 6.1.
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

_Static_assert(sizeof(struct apus_vnet_header) == sizeof(struct virtio_net_hdr_mrg_rxbuf), "header size");
_Static_assert(offsetof(struct apus_vnet_header, csum_start) == offsetof(struct virtio_net_hdr, csum_start), "start");
_Static_assert(APUS_VNET_NEEDS_CSUM == VIRTIO_NET_HDR_F_NEEDS_CSUM, "flag");
_Static_assert(APUS_VNET_DATA_VALID == VIRTIO_NET_HDR_F_DATA_VALID, "flag");
_Static_assert(APUS_GSO_TCPV4 == VIRTIO_NET_HDR_GSO_TCPV4 && APUS_GSO_TCPV6 == VIRTIO_NET_HDR_GSO_TCPV6, "gso");
_Static_assert(APUS_GSO_UDP == VIRTIO_NET_HDR_GSO_UDP && APUS_GSO_ECN == VIRTIO_NET_HDR_GSO_ECN, "gso");

int apus_tap_open(const char *name, char *chosen, bool multi_queue) {
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return -errno;
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (multi_queue ? IFF_MULTI_QUEUE : 0)};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    int size = sizeof(struct apus_vnet_header), little = 1;
    if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &size) < 0 ||
        ioctl(fd, TUNSETVNETLE, &little) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    memcpy(chosen, request.ifr_name, IFNAMSIZ);
    return fd;
}

int apus_tap_offload(int fd, bool checksums, bool superframes) {
    unsigned flags = checksums ? TUN_F_CSUM : 0;
    if (superframes) flags |= TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    if (superframes && ioctl(fd, TUNSETOFFLOAD, flags | TUN_F_USO4 | TUN_F_USO6) == 0) return 0;
    return ioctl(fd, TUNSETOFFLOAD, flags) < 0 ? -errno : 0;
}

int apus_tap_persist(int fd, bool persistent) { return ioctl(fd, TUNSETPERSIST, persistent) < 0 ? -errno : 0; }

ssize_t apus_readv(int fd, const struct iovec *iov, int count) {
    ssize_t n = readv(fd, iov, count);
    return n < 0 ? -errno : n;
}

ssize_t apus_writev(int fd, const struct iovec *iov, int count) {
    ssize_t n = writev(fd, iov, count);
    return n < 0 ? -errno : n;
}
