import CDPDK

/// Which address was last heard at which port of a bridge.
///
/// One table for all lcores, since what one lcore hears another has to find. Fixed memory, no lock: an entry is two
/// words, written with one atomic store each. A reader that finds its key looks at it again after the value; whoever
/// takes an entry over hides it in between. A lookup reads at most two cache lines. Two lcores that learn one address at
/// once may enter it twice; the first is found and refreshed, the other ages.
@safe public struct AddressTable: @unchecked Sendable {
    // @unchecked: every word behind the pointers is atomic; the pointers never change.
    private let words: UnsafeMutablePointer<UInt64>
    /// Addresses by port.
    private let counts: UnsafeMutablePointer<UInt64>
    private let pairMask: UInt64
    private let portLimit: UInt64
    private let ageingTicks: UInt64

    /// An address in a VLAN; never 0.
    struct Key: Equatable {
        let word: UInt64
        @_noLocks init(address: UInt64, vlan: UInt16) { word = address | UInt64(vlan) &<< 48 | 1 &<< 63 }
    }

    /// 2^20 cycles: under a millisecond, so that 48 bits last.
    @_noLocks static func tick(_ cycles: UInt64) -> UInt64 { cycles &>> 20 & 0xffff_ffff_ffff }

    /// Entries of two neighbouring cache lines, where an address may stand.
    private static var ways: Int { 8 }
    /// No key: the entry is between two owners.
    private static var busy: UInt64 { 1 }

    /// - Parameters:
    ///   - capacity: addresses; twice as many entries are made, so that few addresses find their lines full.
    ///   - portLimit: addresses that one port may have.
    public init(capacity: Int, portCount: Int, portLimit: Int, ageingSeconds: Int) {
        precondition(apus_cycles_per_second() > 0, "EAL has not measured its clock yet: nothing would age, or everything at once")
        var pairs = 1
        while pairs * Self.ways < capacity * 2 { pairs *= 2 }
        let bytes = pairs * Self.ways * 16
        unsafe words = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 128).initializeMemory(as: UInt64.self, repeating: 0, count: bytes / 8)
        unsafe counts = .allocate(capacity: portCount)
        unsafe counts.initialize(repeating: 0, count: portCount)
        pairMask = UInt64(pairs - 1)
        self.portLimit = UInt64(portLimit)
        ageingTicks = UInt64(ageingSeconds) * apus_cycles_per_second() >> 20
    }

    /// Nobody uses it any more.
    public func free() {
        unsafe words.deallocate()
        unsafe counts.deallocate()
    }

    var entryCount: Int { Int(pairMask + 1) * Self.ways }

    // MARK: Lcores

    /// The port, or -1.
    @_noLocks
    func lookup(_ key: Key, now: UInt64) -> Int {
        let first = unsafe place(key)
        for way in 0..<Self.ways {
            let entry = unsafe first + 2 * way
            guard unsafe apus_shared_load(entry) == key.word else { continue }
            let value = unsafe apus_shared_load(entry + 1)
            guard unsafe apus_shared_load(entry) == key.word, !isOld(value, now) else { return -1 }
            return Int(value & 0xffff)
        }
        return -1
    }

    /// - Returns: false where the port has its share of addresses, or the address's lines are full.
    @_noLocks
    func learn(_ key: Key, port: Int, now: UInt64) -> Bool {
        let first = unsafe place(key)
        var unused = -1
        for way in 0..<Self.ways {
            let word = unsafe apus_shared_load(first + 2 * way)
            if word == key.word { return unsafe refresh(first + 2 * way, port, now) }
            if unused < 0, word != Self.busy, unsafe word == 0 || isOld(apus_shared_load(first + 2 * way + 1), now) { unused = way }
        }
        guard unused >= 0, unsafe apus_shared_load(counts + port) < portLimit else { return false }
        let entry = unsafe first + 2 * unused
        let old = unsafe apus_shared_load(entry)
        guard unsafe old != Self.busy && apus_shared_exchange(entry, old, Self.busy) else { return false }
        if old != 0 { unsafe release(apus_shared_load(entry + 1)) }
        unsafe apus_shared_store(entry + 1, Self.value(port, now))
        unsafe apus_shared_store(entry, key.word)
        unsafe apus_shared_add(counts + port, 1)
        return true
    }

    /// True where the address is known at this port already, which it is for longer now; otherwise nothing changes.
    @_noLocks
    func renew(_ key: Key, port: Int, now: UInt64) -> Bool {
        let first = unsafe place(key)
        for way in 0..<Self.ways {
            let entry = unsafe first + 2 * way
            guard unsafe apus_shared_load(entry) == key.word else { continue }
            return unsafe Int(apus_shared_load(entry + 1) & 0xffff) == port && refresh(entry, port, now)
        }
        return false
    }

    /// Forgets what is old among 64 entries from `cursor` on, and gives where to go on.
    @_noLocks
    func sweep(from cursor: Int, now: UInt64) -> Int {
        for step in 0..<64 {
            let entry = unsafe words + 2 * ((cursor &+ step) & (Int(pairMask &+ 1) &* Self.ways &- 1))
            let word = unsafe apus_shared_load(entry)
            guard word != 0, word != Self.busy else { continue }
            let value = unsafe apus_shared_load(entry + 1)
            guard isOld(value, now), unsafe apus_shared_exchange(entry, word, 0) else { continue }
            release(value)
        }
        return (cursor &+ 64) & (Int(pairMask &+ 1) &* Self.ways &- 1)
    }

    @_noLocks
    private func refresh(_ entry: UnsafeMutablePointer<UInt64>, _ port: Int, _ now: UInt64) -> Bool {
        let value = unsafe apus_shared_load(entry + 1)
        let isHere = Int(value & 0xffff) == port
        // Written a few times until it is old, not for every packet: other lcores read the line.
        if isHere, Self.age(value, now) &* 16 <= ageingTicks { return true }
        if !isHere {
            guard unsafe apus_shared_load(counts + port) < portLimit else { return false }
            release(value)
            unsafe apus_shared_add(counts + port, 1)
        }
        unsafe apus_shared_store(entry + 1, Self.value(port, now))
        return true
    }

    @_noLocks private func release(_ value: UInt64) { unsafe apus_shared_add(counts + Int(value & 0xffff), 0 &- 1) }

    @_noLocks
    private func place(_ key: Key) -> UnsafeMutablePointer<UInt64> {
        // The upper half of a product with 2^64 over the golden ratio depends on every bit of the key.
        let hash = (key.word ^ key.word &>> 29) &* 0x9e37_79b9_7f4a_7c15
        return unsafe words + Int((hash &>> 32) & pairMask) &* Self.ways &* 2
    }

    @_noLocks private static func value(_ port: Int, _ now: UInt64) -> UInt64 { UInt64(truncatingIfNeeded: port) | now &<< 16 }
    /// Another lcore's clock may be a tick ahead.
    @_noLocks private static func age(_ value: UInt64, _ now: UInt64) -> UInt64 {
        let then = value &>> 16
        return now > then ? now &- then : 0
    }
    @_noLocks private func isOld(_ value: UInt64, _ now: UInt64) -> Bool { Self.age(value, now) > ageingTicks }

    // MARK: Control

    public struct Entry: Sendable {
        /// Six bytes, the first in the lowest.
        public let address: UInt64
        public let vlan: UInt16
        public let port: Int
        public let ageSeconds: Double
    }

    /// What it knows now, read while lcores write.
    public func entries() -> [Entry] { entries(now: Self.tick(apus_cycles())) }

    func entries(now: UInt64) -> [Entry] {
        (0..<entryCount).compactMap { number in
            let word = unsafe apus_shared_load(words + 2 * number), value = unsafe apus_shared_load(words + 2 * number + 1)
            guard word != 0, word != Self.busy, unsafe apus_shared_load(words + 2 * number) == word, !isOld(value, now) else { return nil }
            return Entry(address: word & 0xffff_ffff_ffff, vlan: UInt16(word >> 48 & 0xfff), port: Int(value & 0xffff),
                         ageSeconds: Double(Self.age(value, now) << 20) / Double(apus_cycles_per_second()))
        }
    }

    public func count(ofPort port: Int) -> Int { unsafe Int(apus_shared_load(counts + port)) }
}
