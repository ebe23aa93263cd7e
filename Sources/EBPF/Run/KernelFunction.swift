/// Functions of the kernel that programs may call by name, beside the helpers: those that ask the receiving device what
/// it knows of a packet (Documentation/networking/xdp-rx-metadata.rst). No port of ours tells, and they say so.
enum KernelFunction: String {
    case receiveTimestamp = "bpf_xdp_metadata_rx_timestamp"
    case receiveHash = "bpf_xdp_metadata_rx_hash"
    case receiveTag = "bpf_xdp_metadata_rx_vlan_tag"

    /// What a call comes down to: `-EOPNOTSUPP`, and what the arguments point to is left alone.
    var decoded: DecodedInstruction {
        DecodedInstruction(operation: .mov64, destination: 0, source: DecodedInstruction.immediateRegister,
                           immediate: UInt64(bitPattern: -ErrorNumber.notSupported))
    }
}
