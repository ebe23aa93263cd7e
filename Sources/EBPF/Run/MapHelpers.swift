internal import CBPF

/// Helpers that take a map.
extension Machine {
    @inline(__always)
    func mapHelper<T: Trust>(_: T.Type, _ helper: Helper, _ r1: UInt64, _ r2: UInt64, _ r3: UInt64, _ r4: UInt64) -> UInt64? {
        guard let map = unsafe map(T.self, r1) else { return nil }
        let keySize = unsafe map.pointee.keySize, valueSize = unsafe map.pointee.valueSize
        switch helper {
        case .mapUpdate:
            guard mayRead(T.self, r2, keySize), mayRead(T.self, r3, valueSize) else { return nil }
            return unsafe Machine.word(map.pointee.update(r2, r3, flags: r4))
        case .mapDelete:
            guard mayRead(T.self, r2, keySize) else { return nil }
            return unsafe Machine.word(map.pointee.delete(r2))
        case .mapPush:
            guard mayRead(T.self, r2, valueSize) else { return nil }
            return unsafe Machine.word(map.pointee.push(r2, flags: r3))
        case .mapPop, .mapPeek:
            guard mayPass(T.self, r2, valueSize, writes: true) else { return nil }
            return unsafe Machine.word(map.pointee.take(r2, removes: helper == .mapPop))
        default:
            guard mayRead(T.self, r2, keySize) else { return nil }
            return unsafe map.pointee.lookup(r2, cpu: UInt32(truncatingIfNeeded: r3))
        }
    }

    @inline(__always)
    func recordHelper<T: Trust>(_: T.Type, _ helper: Helper, _ r1: UInt64, _ r2: UInt64, _ r3: UInt64, _ r4: UInt64, _ r5: UInt64) -> UInt64? {
        // Kept in a record until it is committed, so the map is found by where the record lies.
        if helper == .ringSubmit || helper == .ringDiscard {
            guard !T.isChecked || isRecord(r1) else { return nil }
            RingBuffer.commit(r1, discard: helper == .ringDiscard)
            return 0
        }
        let isEvent = helper == .perfEventOutput
        guard let map = unsafe map(T.self, isEvent ? r2 : r1), unsafe map.pointee.kind == (isEvent ? .events : .ringBuffer) else { return nil }
        switch helper {
        case .perfEventOutput: return unsafe eventOutput(T.self, map, r1, r3, r4, r5)
        case .ringReserve: return r3 != 0 ? 0 : unsafe map.pointee.ring.pointee.reserve(r2)
        case .ringOutput:
            // BPF_RB_NO_WAKEUP, BPF_RB_FORCE_WAKEUP: the consumer polls anyway.
            if r4 & ~3 != 0 { return Machine.word(-ErrorNumber.invalid) }
            guard r3 <= UInt64(UInt32.max), mayPass(T.self, r2, Int(r3)) else { return nil }
            return unsafe map.pointee.ring.pointee.write(r2, r3) ? 0 : Machine.word(-ErrorNumber.again)
        default: return unsafe map.pointee.ring.pointee.query(r2)
        }
    }

    /// `bpf_perf_event_output`: the upper half of `flags` says how many packet bytes follow the data.
    @inline(__always)
    private func eventOutput<T: Trust>(_: T.Type, _ map: UnsafeMutablePointer<MapStorage>, _ context: UInt64, _ flags: UInt64,
                                       _ data: UInt64, _ size: UInt64) -> UInt64? {
        guard !T.isChecked || context == md else { return nil }
        let packetBytes = flags >> 32
        if packetBytes > 0xfffff { return Machine.word(-ErrorNumber.invalid) }
        guard size <= UInt64(UInt32.max), mayPass(T.self, data, Int(size)) else { return nil }
        if packetBytes > packet.end &- packet.data { return Machine.word(-ErrorNumber.badAddress) }
        return unsafe Machine.word(map.pointee.eventOutput(flags & 0xffff_ffff, data, size, packet.data, packetBytes))
    }

    /// Sandbox: whether a record of one of the program's ring buffers may start here.
    @_noLocks
    private func isRecord(_ address: UInt64) -> Bool {
        guard address & 7 == 0 else { return false }
        for index in 0..<(unsafe image.pointee.mapCount) where unsafe image.pointee.maps[index].pointee.kind == .ringBuffer {
            let ring = unsafe image.pointee.maps[index].pointee.ring.pointee
            if address >= ring.data &+ RingBuffer.header && address < ring.data &+ (ring.mask &+ 1) &* 2 { return true }
        }
        return false
    }

    @inline(__always)
    mutating func lockHelper<T: Trust>(_: T.Type, _ helper: Helper, _ address: UInt64) -> UInt64? {
        if !T.isChecked {
            if helper == .spinLock { unsafe apus_lock(Memory.word32(address)) } else { unsafe apus_unlock(Memory.word32(address)) }
            return 0
        }
        if helper == .spinUnlock {
            guard heldLock == address, address != 0 else { return nil }
            leave()
            return 0
        }
        guard heldLock == 0, isSpinLock(address) else { return nil }
        // Whoever holds it, a verified program or the control side, lets go soon.
        while !(unsafe apus_try_lock(Memory.word32(address))) {
            budget &-= 1
            if budget < 0 {
                fault = .budget
                return nil
            }
        }
        heldLock = address
        return 0
    }

    @_noLocks
    private func isSpinLock(_ address: UInt64) -> Bool {
        for index in 0..<(unsafe image.pointee.mapCount) {
            if unsafe image.pointee.maps[index].pointee.isSpinLock(address) { return true }
        }
        return false
    }

    // MARK: Callbacks

    /// Calls a function of the program with up to four arguments. What it returned is in r0.
    /// - Returns: false if the run is over.
    @inline(never)
    private mutating func callback<T: Trust>(_: T.Type, _ function: UInt64, _ a: UInt64, _ b: UInt64, _ c: UInt64 = 0, _ d: UInt64 = 0) -> Bool {
        guard function < UInt64(unsafe image.pointee.codeCount) else { return fails(.access) }
        guard enter(returningTo: 0) else { return fails(.depth) }
        unsafe registers[1] = a
        unsafe registers[2] = b
        unsafe registers[3] = c
        unsafe registers[4] = d
        guard walk(T.self, from: Int(function)) else { return false }
        _ = leaveFrame()
        return true
    }

    /// `bpf_loop`
    @inline(__always)
    mutating func runLoop<T: Trust>(_: T.Type) -> Bool {
        let count = UInt32(truncatingIfNeeded: unsafe registers[1])
        let (function, context, flags) = unsafe (registers[2], registers[3], registers[4])
        if flags != 0 || count > 8 << 20 {
            unsafe registers[0] = Machine.word(flags != 0 ? -ErrorNumber.invalid : -ErrorNumber.tooBig)
            return true
        }
        var done: UInt64 = 0
        while done < UInt64(count) {
            guard callback(T.self, function, done, context) else { return false }
            done &+= 1
            if unsafe registers[0] != 0 { break }
        }
        unsafe registers[0] = EngineBug.has(.loopCount) && done > 0 ? done &- 1 : done
        return true
    }

    /// `bpf_for_each_map_elem`, over arrays and hashes.
    @inline(__always)
    mutating func runForEach<T: Trust>(_: T.Type) -> Bool {
        guard let map = unsafe map(T.self, registers[1]) else { return fails(.access) }
        let (function, context, flags) = unsafe (registers[2], registers[3], registers[4])
        if flags != 0 {
            unsafe registers[0] = Machine.word(-ErrorNumber.invalid)
            return true
        }
        let done: UInt64? = switch unsafe map.pointee.kind {
        case .array: unsafe eachOfArray(T.self, map, function, context)
        case .hash, .lruHash: unsafe eachOfHash(T.self, map, function, context)
        default: Machine.word(-ErrorNumber.invalid)
        }
        guard let done else { return false }
        unsafe registers[0] = done
        return true
    }

    private mutating func eachOfArray<T: Trust>(_: T.Type, _ map: UnsafeMutablePointer<MapStorage>, _ function: UInt64, _ context: UInt64) -> UInt64? {
        // The key lies beside the saved registers of this depth, where a nested walk does not reach.
        let key = keyPlace
        var index: UInt32 = 0
        while unsafe index < map.pointee.maxEntries {
            Memory.store64(key, UInt64(index))
            let value = unsafe map.pointee.lookup(key)
            guard callback(T.self, function, UInt64(UInt(bitPattern: map)), key, value, context) else { return nil }
            index &+= 1
            if unsafe registers[0] != 0 { break }
        }
        return UInt64(index)
    }

    private mutating func eachOfHash<T: Trust>(_: T.Type, _ map: UnsafeMutablePointer<MapStorage>, _ function: UInt64, _ context: UInt64) -> UInt64? {
        var done: UInt64 = 0
        for bucket in 0...Int(unsafe map.pointee.bucketMask) {
            var link = unsafe apus_acquire32(map.pointee.buckets + bucket)
            // The callback may delete what it is shown, and more; a node is followed only while it is in the table.
            while link < MapStorage.end {
                let node = unsafe map.pointee.node(link)
                let next = unsafe apus_acquire32(Memory.word32(node))
                let key = node &+ 8
                if unsafe map.pointee.search(key) == link {
                    let value = unsafe map.pointee.value(link) &+ UInt64(map.pointee.cpuStride) &* UInt64(apus_cpu())
                    guard callback(T.self, function, UInt64(UInt(bitPattern: map)), key, value, context) else { return nil }
                    done &+= 1
                    if unsafe registers[0] != 0 { return done }
                }
                link = next
            }
        }
        return done
    }
}

extension MapStorage {
    @_noLocks
    func isSpinLock(_ address: UInt64) -> Bool {
        guard spinLockOffset >= 0 else { return false }
        let (first, nodes) = kind == .array ? (table, UInt64(maxEntries)) : (table &+ UInt64(valueOffset), UInt64(maxEntries) &+ 1)
        guard kind == .array || kind == .hash, address >= first, address < first &+ nodes &* UInt64(stride) else { return false }
        return (address &- first) % UInt64(stride) == UInt64(spinLockOffset)
    }
}
