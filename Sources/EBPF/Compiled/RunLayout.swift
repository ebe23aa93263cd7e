internal import CBPF

/// Where compiled code finds the fields of what it shares with the engine. Swift lays structs out as it likes: the
/// compiler asks here.
package enum RunLayout {
    /// `Machine`: one a burst, filled anew for each packet.
    package enum Run {
        package static var size: Int { MemoryLayout<Machine>.size }
        package static var image: Int { unsafe offset(\Machine.image) }
        package static var data: Int { offset(\Machine.packet.data) }
        package static var end: Int { offset(\Machine.packet.end) }
        package static var meta: Int { offset(\Machine.packet.meta) }
        package static var bufferStart: Int { offset(\Machine.packet.bufferStart) }
        package static var bufferEnd: Int { offset(\Machine.packet.bufferEnd) }
        package static var arrivalData: Int { offset(\Machine.packet.arrivalData) }
        package static var arrivalEnd: Int { offset(\Machine.packet.arrivalEnd) }
        package static var isMultiBuffer: Int { offset(\Machine.packet.isMultiBuffer) }
        package static var effect: Int { offset(\Machine.packet.effect) }
        package static var arrival: Int { offset(\Machine.arrival) }
        package static var watched: Int { offset(\Machine.watched) }
        package static var depth: Int { offset(\Machine.depth) }
        package static var tailCalls: Int { offset(\Machine.tailCalls) }
        package static var budget: Int { offset(\Machine.budget) }
        package static var heldLock: Int { offset(\Machine.heldLock) }
        package static var fault: Int { offset(\Machine.fault) }
        package static var isPrepared: Int { offset(\Machine.isPrepared) }
        package static var frames: Int { offset(\Machine.frames) }
        package static var saved: Int { unsafe offset(\Machine.saved) }
        /// What is still watched behind a tail call.
        package static var opaqueMarks: UInt64 { UInt64(Marks.opaqueBits) }
        package static var lookMarks: UInt8 { Marks.lookBits }
        package static var clearsMark: UInt8 { Marks.clearsBit }
        package static var budgetMax: Int { Machine.budgetMax }
        package static var tailCallsMax: Int { Int(Machine.tailCallsMax) }
        package static var frameBytes: Int { Int(APUS_FRAME_BYTES) }
        package static var framesMax: Int { Int(APUS_FRAMES_MAX) }
        /// From the thread pointer to the number of the CPU, in 4 bytes; 0: the kernel must be asked.
        package static var processor: Int { apus_cpu_place() }
        /// Stands for `struct xdp_md`.
        package static var context: UInt64 { apus_context_address() }
    }

    package enum Context {
        package static var size: Int { MemoryLayout<XDPContext>.size }
        package static var stride: Int { MemoryLayout<XDPContext>.stride }
        package static var data: Int { unsafe offset(\XDPContext.data) }
        package static var end: Int { unsafe offset(\XDPContext.dataEnd) }
        package static var meta: Int { unsafe offset(\XDPContext.dataMeta) }
        package static var bufferStart: Int { unsafe offset(\XDPContext.bufferStart) }
        package static var bufferEnd: Int { unsafe offset(\XDPContext.bufferEnd) }
        package static var ingressIndex: Int { offset(\XDPContext.ingressIndex) }
        package static var rxQueue: Int { offset(\XDPContext.rxQueue) }
        package static var isMultiBuffer: Int { offset(\XDPContext.isMultiBuffer) }
        package static var bytesBehind: Int { offset(\XDPContext.bytesBehind) }
        package static var watched: Int { offset(\XDPContext.watched) }
    }

    package enum Outcome {
        package static var size: Int { MemoryLayout<Effect>.size }
        package static var stride: Int { MemoryLayout<Effect>.stride }
        package static var verdict: Int { offset(\Effect.verdict) }
        package static var written: Int { offset(\Effect.written) }
        package static var writtenSize: Int { MemoryLayout<WrittenBytes>.size }
        package static var first: Int { offset(\Effect.written.first) }
        package static var before: Int { offset(\Effect.written.before) }
        package static var restUpper: Int { offset(\Effect.written.restUpper) }
        package static var headDelta: Int { offset(\Effect.headDelta) }
        package static var tailDelta: Int { offset(\Effect.tailDelta) }
        package static var lowestEnd: Int { offset(\Effect.lowestEnd) }
        package static var moved: Int { offset(\Effect.moved) }
        package static var looked: Int { offset(\Effect.looked) }
        package static var cleared: Int { offset(\Effect.cleared) }
        package static var redirectMap: Int { offset(\Effect.redirect.map) }
        package static var redirectIndex: Int { offset(\Effect.redirect.index) }
        package static var redirectFlags: Int { offset(\Effect.redirect.flags) }
        package static var fault: Int { offset(\Effect.fault) }
    }

    /// `ProgramImage`, which program arrays point to.
    package enum Image {
        package static var compiled: Int { unsafe offset(\ProgramImage.compiled) }
    }

    /// `MapStorage`, for program arrays that are known only at run time.
    package enum Map {
        package static var kind: Int { offset(\MapStorage.kind) }
        package static var maxEntries: Int { offset(\MapStorage.maxEntries) }
        package static var table: Int { offset(\MapStorage.table) }
        package static var stride: Int { offset(\MapStorage.stride) }
    }

    private static func offset<Root, Field>(_ field: KeyPath<Root, Field>) -> Int {
        guard let offset = MemoryLayout<Root>.offset(of: field) else { preconditionFailure("a stored field has an offset") }
        return offset
    }
}
