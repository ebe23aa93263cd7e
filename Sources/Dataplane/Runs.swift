import CDPDK
import DPDK
import EBPF
import Wire

/// A program's runs over a few packets, from what they start on to what they did. One a lcore, reused.
@safe struct Runs: ~Copyable {
    /// Few enough that records and headers stay in the first cache, enough to spread what a call of the program costs.
    static var capacity: Int { 16 }

    let contexts: UnsafeMutablePointer<XDPContext>
    let effects: UnsafeMutablePointer<Effect>
    let shadows: UnsafeMutablePointer<Shadow>
    /// Of packets whose checksum a look would finish; the rest is left as it was.
    let looks: UnsafeMutablePointer<Look>

    init() {
        unsafe contexts = .allocate(capacity: Self.capacity)
        unsafe effects = .allocate(capacity: Self.capacity)
        unsafe shadows = .allocate(capacity: Self.capacity)
        unsafe looks = .allocate(capacity: Self.capacity)
        unsafe effects.initialize(repeating: Effect(), count: Self.capacity)
        for number in 0..<Self.capacity { unsafe (shadows + number).initialize(to: Shadow()) }
    }

    deinit {
        unsafe shadows.deinitialize(count: Self.capacity)
        unsafe shadows.deallocate()
        unsafe effects.deallocate()
        unsafe contexts.deallocate()
        unsafe looks.deallocate()
    }
}
