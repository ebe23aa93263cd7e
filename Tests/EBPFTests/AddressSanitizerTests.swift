#if APUS_PLANTED
import CBPF
import Foundation
import Testing

@testable import EBPF

/// A build that was to have it and has not fails here.
private let isAsked = ProcessInfo.processInfo.environment["ASAN_OPTIONS"] != nil

/// `make test-asan` runs the sandbox, mutated objects and maps under AddressSanitizer. It would report what it is to find:
/// each test here is a process of its own that touches one byte too many.
@Suite(.enabled(if: apus_is_sanitized() || isAsked, "only `make test-asan` builds with AddressSanitizer")) struct AddressSanitizerTests {
    /// The shims in C.
    @Test func reportsC() async throws {
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            apus_report_here()
            EngineBug.plantOverread()
            print(AddressSanitizerTests.formatted())
        }
        try AddressSanitizerTests.check(result, in: "apus_format")
    }

    /// The same call without the bug.
    @Test func acceptsC() { #expect(AddressSanitizerTests.formatted() == 4) }

    /// The interpreter, in Swift, which loads and stores through functions of a header: a program nobody verified and no
    /// sandbox holds reads the byte behind a packet.
    @Test func reportsSwift() async throws {
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            apus_report_here()
            print(try AddressSanitizerTests.read(60))
        }
        try AddressSanitizerTests.check(result, in: "apus_load8")
    }

    @Test func acceptsSwift() throws { #expect(try AddressSanitizerTests.read(59) == 0x5a) }

    private static func check(_ result: ExitTest.Result?, in function: String) throws {
        let text = String(decoding: try #require(result).standardErrorContent, as: UTF8.self)
        #expect(text.contains("AddressSanitizer: heap-buffer-overflow"), "\(text.suffix(2000))")
        // Who reads is the first frame.
        let frame = text.split(separator: "\n").first { $0.contains("#0 ") }
        #expect(frame?.contains(function) == true, "\(text.suffix(2000))")
    }

    /// A format that ends where its memory does.
    private static func formatted() -> Int {
        let format = UnsafeMutableRawBufferPointer.allocate(byteCount: 5, alignment: 1)
        defer { unsafe format.deallocate() }
        unsafe format.copyBytes(from: Array("four\0".utf8))
        return unsafe apus_print_to(0, 0, UInt64(UInt(bitPattern: format.baseAddress)), 5, UInt64(UInt(bitPattern: format.baseAddress)), 0, 0)
    }

    /// The byte at an offset of a packet of 60, as a program reads it.
    private static func read(_ offset: Int16) throws -> UInt64 {
        let code = [Asm.load(Asm.word, 6, 1, 0), Asm.load(Asm.byte, 0, 6, offset), Asm.exit]
        let bench = Bench(headroom: 0, bufferSize: 60)
        return bench.run(try LoadedProgram.bare(code), [UInt8](repeating: 0x5a, count: 60)).r0
    }
}
#endif
