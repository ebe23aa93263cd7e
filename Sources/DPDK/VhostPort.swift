import CDPDK
import Glibc

/// A vhost-user socket as a port: a guest's or virtio-user's peer, through DPDK's net_vhost.
///
/// Up whether or not the peer is there. The device goes with the value; its lcore has ended before.
public struct VhostPort: ~Copyable {
    public enum Role: Sendable {
        /// Listens, and removes a socket file nobody listens on.
        case server
        /// Connects, and keeps trying.
        case client
    }

    private let device: Device
    public var queue: EthQueue { EthQueue(port: device.port) }

    /// - Parameter pool: buffers for what the guest sends; its room decides how superframes are split.
    public init(name: String, path: String, role: Role, pool: borrowing PacketPool) throws(DPDKError) {
        guard !path.contains(","), !path.contains("=") else {
            throw DPDKError("the socket path '\(path)' has a ',' or '=' in it, which DPDK cannot take")
        }
        if role == .server { try StaleSocket.remove(path) }
        // tso=1: without it net_vhost refuses superframes from the guest.
        let arguments = "iface=\(path),queues=1,client=\(role == .client ? 1 : 0),tso=1"
        var port: UInt16 = 0
        let created = unsafe apus_vdev_create("net_vhost_\(name)", arguments, &port)
        guard created == 0 else {
            throw DPDKError("cannot open the vhost-user socket '\(path)'", created,
                            remedy: "check that its directory exists and is writable")
        }
        let device = Device(name: "net_vhost_\(name)", port: port)
        // Receive checksum offload must be asked for, or net_vhost completes every packet.
        var setup = unsafe apus_eth_setup(
            receive_offloads: apus_receive_checksum_offloads, transmit_offloads: apus_transmit_checksum_offloads
                | apus_transmit_multi_segment_offload,
            queues: 1, ring_size: 1024, socket: apus_socket_any(), pool: pool.mempool)
        let started = unsafe apus_eth_start(port, &setup)
        guard started == 0 else { throw DPDKError("cannot start the vhost-user port on '\(path)'", started) }
        self.device = device
    }

    private struct Device: ~Copyable {
        let name: String
        let port: UInt16

        deinit {
            _ = apus_eth_stop_and_close(port)
            unsafe _ = apus_vdev_destroy(name)
        }
    }
}
