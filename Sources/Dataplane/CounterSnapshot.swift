import CDPDK

/// A copy of one lcore's counters, made by the lcore itself between two rounds, when it is asked to. No packet is on its way
/// then, so that received + created = transmitted + dropped holds in the copy exactly, whatever the load.
///
/// Trivial: the lcore and control hold a value each. Everything it points to outlives both.
@safe public struct CounterSnapshot {
    /// 64-bit words that `control` points to: how many copies were asked for, and how many of them are answered.
    public static var controlWords: Int { 2 }

    private let counters: UnsafePointer<UInt64>
    private let copy: UnsafeMutablePointer<UInt64>
    private let count: Int
    private let asked: UnsafeMutablePointer<UInt64>
    private let answered: UnsafeMutablePointer<UInt64>

    /// - Parameters:
    ///   - counters: `count` words that only the lcore writes.
    ///   - copy: as many, for control to read.
    ///   - control: ``controlWords`` zeroed words.
    public init(of counters: UnsafePointer<UInt64>, count: Int, into copy: UnsafeMutablePointer<UInt64>,
                control: UnsafeMutablePointer<UInt64>) {
        unsafe self.counters = counters
        unsafe self.copy = copy
        self.count = count
        unsafe asked = control
        unsafe answered = control + 1
    }

    /// The lcore's side, once a round.
    @_noLocks
    func answer() {
        let wanted = unsafe apus_shared_load(asked)
        guard unsafe wanted != apus_shared_load(answered) else { return }
        for at in 0..<count { unsafe copy[at] = apus_counter_load(counters + at) }
        unsafe apus_shared_store(answered, wanted)
    }

    /// Control's side: asks for a new copy. One thread at a time.
    public func ask() { unsafe apus_shared_store(asked, apus_shared_load(asked) &+ 1) }

    /// The copy is the one asked for last, and nobody writes to it until the next is asked for.
    public var isAnswered: Bool { unsafe apus_shared_load(asked) == apus_shared_load(answered) }
}
