import Wire

/// What counters want to know of a burst: one pass, and each counter is touched once.
struct BurstTotals {
    var bytes = 0, superframes = 0, none = 0, bad = 0, unnecessary = 0, partial = 0

    // Inline, or the burst is copied to be borrowed.
    @inline(__always) @_noLocks init(of burst: borrowing Burst) {
        if burst.survey.isPlain {
            bytes = burst.survey.bytes
            none = burst.count
            return
        }
        for index in 0..<burst.count {
            bytes &+= burst[index].length
            let state = burst[index].state
            if state.isSuperframe { superframes &+= 1 }
            switch state.kind {
            case .none: none &+= 1
            case .bad: bad &+= 1
            case .unnecessary: unnecessary &+= 1
            case .known, .opaque: partial &+= 1
            }
        }
    }

    @_noLocks mutating func subtract(_ other: BurstTotals) {
        bytes &-= other.bytes
        superframes &-= other.superframes
        none &-= other.none
        bad &-= other.bad
        unnecessary &-= other.unnecessary
        partial &-= other.partial
    }
}

extension ChecksumCounters {
    @_noLocks func received(_ totals: BurstTotals) { count(totals, from: 0) }
    @_noLocks func transmitted(_ totals: BurstTotals) { count(totals, from: 4) }

    @_noLocks private func count(_ totals: BurstTotals, from word: Int) {
        add(word, totals.none)
        add(word &+ 1, totals.bad)
        add(word &+ 2, totals.unnecessary)
        add(word &+ 3, totals.partial)
    }
}
