// swift-tools-version: 6.2
import Foundation
import PackageDescription

/// SwiftPM cannot parse Debian's DPDK .pc files (they use --as-needed and -l:file forms), so the
/// manifest asks pkg-config itself and hands the words on.
func pkgConfig(_ arguments: String...) -> [String] { words(of: "pkg-config", arguments) }

/// What a tool prints, as words.
func words(of tool: String, _ arguments: [String]) -> [String] {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [tool] + arguments
    let output = Pipe()
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    do { try process.run() } catch { fatalError("\(tool) does not run: 'make deps' installs it") }
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
        fatalError("\(tool) \(arguments.joined(separator: " ")) failed: 'make deps' installs what is missing")
    }
    return String(decoding: data, as: UTF8.self).split(whereSeparator: \.isWhitespace).map(String.init)
}

let dpdkCompile = pkgConfig("--cflags", "libdpdk")
let dpdkLink = pkgConfig("--libs", "libdpdk").flatMap { word in
    word.hasPrefix("-Wl,") ? ["-Xlinker", String(word.dropFirst(4))] : [word]
}
let bpfLink = pkgConfig("--libs", "libbpf", "libelf", "zlib")
// The include path only: the other words would define macros for every C file.
let llvmCompile = words(of: "llvm-config-19", ["--includedir"]).map { "-I\($0)" }
let llvmLink = words(of: "llvm-config-19", ["--ldflags", "--libs"])

/// Builds with bugs planted on purpose (see Dataplane/Planted.swift) live in a folder of their own:
/// APUS_PLANTED=1 swift build --scratch-path .build-planted
let isPlanted = ProcessInfo.processInfo.environment["APUS_PLANTED"] == "1"

/// Tests of planted bugs need the daemon, and neither tools nor benchmarks.
let unwanted: Set<String> = isPlanted ? ["apusctl", "apus-bench", "CBench"] : []

/// Which test targets to build: APUS_TESTS=EBPFTests for work on one module, all of them otherwise.
let testsWanted = ProcessInfo.processInfo.environment["APUS_TESTS"]?.split(separator: ",").map(String.init)

/// Every Swift target: Swift 6 mode, strict memory safety, and whole-program inlining across modules,
/// without which the per-packet accessors of Wire and DPDK stay calls.
let house: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableExperimentalFeature("Lifetimes"),
    .unsafeFlags(["-cross-module-optimization"], .when(configuration: .release)),
    // The checker behind @_noLocks needs a module's other files, which a debug build compiles apart:
    // release builds check, debug builds do not.
    .unsafeFlags(["-Xllvm", "-sil-disable-pass=performance-diagnostics"], .when(configuration: .debug)),
]
    + (isPlanted ? [.define("APUS_PLANTED"), .unsafeFlags(["-Xcc", "-DAPUS_PLANTED"])] : [])
let dpdkSwift: [SwiftSetting] = house + [.unsafeFlags(dpdkCompile.flatMap { ["-Xcc", $0] })]
/// Whoever imports Compiler, directly or not, reads the module it wraps.
let llvmImport: [SwiftSetting] = [.unsafeFlags(llvmCompile.flatMap { ["-Xcc", $0] })]
let llvmSwift: [SwiftSetting] = house + llvmImport
let optimised: [CSetting] = [.unsafeFlags(["-O3", "-Wall", "-Wextra"])] + (isPlanted ? [.define("APUS_PLANTED")] : [])

let package = Package(
    name: "apus",
    products: [
        .executable(name: "apus", targets: ["apus"]),
        .executable(name: "apusctl", targets: ["apusctl"]),
        .executable(name: "apus-loader", targets: ["apus-loader"]),
        .executable(name: "apus-bench", targets: ["apus-bench"]),
    ].filter { !unwanted.contains($0.name) },
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        // The only C.
        .target(name: "CChecksum", path: "CShims/CChecksum", cSettings: optimised),
        // The compiler's own loop at -march=native, to measure against: in no other product.
        .target(name: "CBench", path: "CShims/CBench", cSettings: [.unsafeFlags(["-O3", "-march=native"])]),
        .target(name: "CLinux", path: "CShims/CLinux", cSettings: optimised, linkerSettings: [.linkedLibrary("numa")]),
        .target(name: "CBPF", path: "CShims/CBPF", cSettings: optimised,
                linkerSettings: [.unsafeFlags(bpfLink)]),
        .target(name: "CLLVM", path: "CShims/CLLVM", cSettings: [.unsafeFlags(llvmCompile)] + optimised,
                linkerSettings: [.unsafeFlags(llvmLink)]),
        .target(name: "CDPDK", path: "CShims/CDPDK", cSettings: [.unsafeFlags(dpdkCompile)] + optimised,
                linkerSettings: [.unsafeFlags(dpdkLink + ["-lrte_vhost", "-lrte_bus_vdev"])]),

        .target(name: "Wire", dependencies: ["CChecksum"], swiftSettings: house),
        .target(name: "EBPF", dependencies: ["CBPF", "Wire"], swiftSettings: house),
        // Apart from EBPF, so that what opens untrusted objects (apus-loader) links no LLVM.
        .target(name: "Compiler", dependencies: ["CBPF", "CLLVM", "EBPF"], swiftSettings: llvmSwift),
        .target(name: "DPDK", dependencies: ["CChecksum", "CDPDK", "CLinux", "Wire"], swiftSettings: dpdkSwift),
        .target(name: "Dataplane", dependencies: ["DPDK", "EBPF", "Wire", "CLinux"], swiftSettings: dpdkSwift),
        // Configuration, stats and their socket: shared by the daemon and apusctl, which needs no DPDK.
        .target(name: "Control", swiftSettings: house),
        .target(name: "Daemon",
                dependencies: ["CLinux", "Compiler", "Control", "Dataplane", "DPDK", "EBPF", .product(name: "Logging", package: "swift-log")],
                swiftSettings: dpdkSwift + llvmImport),

        .executableTarget(name: "apus", dependencies: [
            "Control", "Daemon", .product(name: "Logging", package: "swift-log"),
            .product(name: "ArgumentParser", package: "swift-argument-parser"),
        ], swiftSettings: dpdkSwift + llvmImport),
        .executableTarget(name: "apusctl", dependencies: [
            "Compiler", "Control", "EBPF", .product(name: "ArgumentParser", package: "swift-argument-parser"),
        ], swiftSettings: llvmSwift),
        .executableTarget(name: "apus-loader", dependencies: ["EBPF"], swiftSettings: house),
        .executableTarget(name: "apus-bench", dependencies: [
            "CBPF", "CBench", "CChecksum", "CDPDK", "Compiler", "Dataplane", "EBPF", "Wire", "DPDK",
            .product(name: "ArgumentParser", package: "swift-argument-parser"),
        ], swiftSettings: dpdkSwift + llvmImport),

        .testTarget(name: "WireTests", dependencies: ["CChecksum", "Wire"], swiftSettings: house),
        .testTarget(name: "EBPFTests", dependencies: ["Compiler", "EBPF", "CBPF"], swiftSettings: llvmSwift),
        .testTarget(name: "DataplaneTests", dependencies: ["CBPF", "CDPDK", "CLinux", "Dataplane", "EBPF", "DPDK", "Wire"], swiftSettings: dpdkSwift),
        .testTarget(name: "ControlTests", dependencies: ["Control"], swiftSettings: house),
    ].filter { target in !unwanted.contains(target.name) && (!target.isTest || testsWanted?.contains(target.name) ?? true) }
)
