internal import CBPF

/// Helpers about the packet and where it goes.
extension Machine {
    @inline(__always)
    mutating func packetHelper<T: Trust>(_: T.Type, _ helper: Helper, _ r1: UInt64, _ r2: UInt64, _ r3: UInt64, _ r4: UInt64, _ r5: UInt64) -> UInt64? {
        switch helper {
        case .loadBytes, .storeBytes:
            guard r4 <= UInt64(UInt32.max) else { return nil }
            // Offsets and lengths beyond 64 KiB are never a packet's.
            let offset = r2 & 0xffff_ffff, size = r4 & 0xffff_ffff
            let isLoad = helper == .loadBytes
            guard mayPass(T.self, r3, Int(size), writes: isLoad) else { return nil }
            if offset > 0xffff || size > 0xffff { return Machine.word(-ErrorNumber.badAddress) }
            return Machine.word(copyBytes(offset, r3, size, isLoad: isLoad))
        case .checkMTU:
            guard mayPass(T.self, r3, 4, writes: true) else { return nil }
            return Machine.word(checkMTU(UInt32(truncatingIfNeeded: r2), r3, Int32(truncatingIfNeeded: r4), r5))
        case .fibLookup:
            guard r3 <= UInt64(UInt32.max), !T.isChecked || r1 == md && (r3 == 0 || mayTouch(r2, Int(r3), writes: true)) else { return nil }
            return Machine.word(Helpers.fibLookup(r2, r3, r4))
        case .redirect:
            if r2 != 0 { return UInt64(XDPVerdict.aborted.rawValue) }
            packet.effect.redirect = RedirectTarget(map: 0, index: UInt32(truncatingIfNeeded: r1), flags: 0)
            return UInt64(XDPVerdict.redirect.rawValue)
        default:
            guard let map = unsafe map(T.self, r1) else { return nil }
            return unsafe redirect(map, UInt32(truncatingIfNeeded: r2), r3)
        }
    }

    /// `bpf_redirect_map`: the lowest two flag bits are the answer where there is no target.
    @_noLocks
    private mutating func redirect(_ map: UnsafeMutablePointer<MapStorage>, _ index: UInt32, _ flags: UInt64) -> UInt64? {
        let broadcast: UInt64 = 1 << 3, excludeIngress: UInt64 = 1 << 4
        let isDevices: Bool
        switch unsafe map.pointee.kind {
        case .deviceArray, .deviceHash: isDevices = true
        case .processors, .sockets: isDevices = false
        default: return nil
        }
        if flags & ~(3 | (isDevices ? broadcast | excludeIngress : 0)) != 0 { return UInt64(XDPVerdict.aborted.rawValue) }
        let key = keyPlace
        Memory.store64(key, UInt64(index))
        if unsafe map.pointee.lookup(key) == 0 && flags & broadcast == 0 {
            packet.effect.redirect = RedirectTarget()
            return flags & 3
        }
        packet.effect.redirect = RedirectTarget(map: UInt64(UInt(bitPattern: map)), index: index, flags: flags)
        return UInt64(XDPVerdict.redirect.rawValue)
    }

    /// `bpf_xdp_load_bytes` and `bpf_xdp_store_bytes` over the first segment; what lies behind is not here.
    @_noLocks
    private mutating func copyBytes(_ offset: UInt64, _ buffer: UInt64, _ size: UInt64, isLoad: Bool) -> Int64 {
        let linear = packet.end &- packet.data
        guard offset &+ size <= linear &+ UInt64(arrival.bytesBehind) else { return -ErrorNumber.invalid }
        guard offset &+ size <= linear else { return -ErrorNumber.notSupported }
        let at = packet.data &+ offset
        if isLoad {
            unsafe apus_move(Memory.pointer(buffer), Memory.pointer(at), Int(size))
        } else {
            packet.willStore(at, size)
            unsafe apus_move(Memory.pointer(at), Memory.pointer(buffer), Int(size))
        }
        return 0
    }

    /// `bpf_check_mtu`: 0 the packet fits, 1 it does not. `*mtu` comes in as an L3 length to check instead, or 0.
    @_noLocks
    private func checkMTU(_ index: UInt32, _ mtu: UInt64, _ difference: Int32, _ flags: UInt64) -> Int64 {
        if flags != 0 { return -ErrorNumber.invalid }
        let limit = Int64(apus_interface_mtu(index == 0 ? arrival.ingressIndex : index))
        guard limit >= 0 else { return -ErrorNumber.noDevice }
        let header = Int32(truncatingIfNeeded: Packet.ethernetHeader)
        let asked = Int32(truncatingIfNeeded: Memory.load32(mtu))
        // The kernel's are ints: a length from 2^31 up is one below 0, which fits.
        let size = (asked != 0 ? asked &+ header : Int32(truncatingIfNeeded: packet.end &- packet.data)) &+ difference
        Memory.store32(mtu, UInt64(bitPattern: limit))
        return size > Int32(truncatingIfNeeded: limit) &+ header ? 1 : 0
    }
}
