import CDPDK

/// What control may change about ports while lcores run: one flag a port. Outlives the lcores.
@safe final class PortControls: @unchecked Sendable {
    // @unchecked: flags are read and written atomically; the pointer never changes.
    private let flags: UnsafeMutableBufferPointer<Bool>

    init(_ isFull: [Bool]) {
        unsafe flags = .allocate(capacity: isFull.count)
        unsafe _ = flags.initialize(from: isFull)
    }

    deinit { unsafe flags.deallocate() }

    func isFull(_ port: Int) -> UnsafePointer<Bool> { unsafe UnsafePointer(flags.baseAddress! + port) }

    func setFull(_ port: Int, _ isFull: Bool) { unsafe apus_flag_store(flags.baseAddress! + port, isFull) }
    func full(_ port: Int) -> Bool { unsafe apus_flag_load(flags.baseAddress! + port) }
}
