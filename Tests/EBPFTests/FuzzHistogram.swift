@testable import EBPF

/// Where an instruction counts: what it does, and what it does it on.
struct FuzzCell: Hashable, Sendable {
    /// The opcode with what else tells one instruction from another: sign, width, atomic operation, helper.
    let row: UInt32
    /// `FuzzOperand`, or of a helper its map.
    let column: UInt8

    init(row: UInt32, _ operand: FuzzOperand) { (self.row, column) = (row, operand.rawValue) }
    init(helper: UInt32, _ map: FuzzMap) { (row, column) = (FuzzCell.helper(helper), 64 + UInt8(map.rawValue)) }

    static func helper(_ number: UInt32) -> UInt32 { 1 << 31 | number }

    init?(_ i: Instruction, _ f: FuzzFunction) {
        if i.opcode == 0 { return nil }
        if i.isHelperCall {
            let argument = i.immediate == 12 || i.immediate == 25 ? 2 : 1
            if case .map(let map) = f.types[argument] { self.init(helper: UInt32(i.immediate), map) }
            else { self.init(row: FuzzCell.helper(UInt32(i.immediate)), .none) }
        } else {
            self.init(row: FuzzCell.row(i), FuzzOperand.of(i, f))
        }
    }

    static func row(_ i: Instruction) -> UInt32 {
        let variant: Int32
        switch (i.instructionClass, i.opcode >> 4) {
        case (0x04, 0xd), (0x07, 0xd): variant = i.immediate
        case (0x04, _), (0x07, _): variant = Int32(i.offset)
        case (0x05, 0x8), (0x00, _): variant = Int32(i.source)
        case (0x03, _) where i.opcode & 0xe0 == 0xc0: variant = i.immediate
        default: variant = 0
        }
        return UInt32(i.opcode) | UInt32(variant) << 8
    }

    var columnName: String {
        column < 64 ? FuzzOperand(rawValue: column).map { "\($0)" } ?? "?" : FuzzMap(rawValue: Int(column) - 64).map { "\($0)" } ?? "?"
    }
}

/// How often each instruction of accepted programs met each kind of operand.
struct FuzzHistogram: Sendable {
    private(set) var counts: [FuzzCell: Int] = [:]

    mutating func add(_ cells: [FuzzCell]) {
        for cell in cells { counts[cell, default: 0] += 1 }
    }

    mutating func add(_ other: FuzzHistogram) { counts.merge(other.counts, uniquingKeysWith: +) }

    /// The cells that must not be empty: RFC 9669's instructions by what the kernel's verifier lets them work on.
    static let wanted: [FuzzCell] = {
        var cells: [FuzzCell] = []
        func add(_ row: UInt32, _ operands: [FuzzOperand]) { cells += operands.map { FuzzCell(row: row, $0) } }
        let k: [FuzzOperand] = [.zero, .one, .minusOne, .small, .word, .min, .max], x = k + [.wide, .unknown]
        for kind: UInt32 in [0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x9, 0xa, 0xb, 0xc] {
            for suffix: UInt32 in [0x07, 0x04] {
                let isDivision = kind == 3 || kind == 9, isShift = kind == 6 || kind == 7 || kind == 0xc
                // Refused: a shift by the width or more, a division by 0, where the code says so.
                let constants = isShift ? [.zero, .one, .small] : isDivision ? k.filter { $0 != .zero } : k
                for sign: UInt32 in isDivision ? [0, 1] : [0] {
                    add(kind << 4 | suffix | sign << 8, constants)
                    add(kind << 4 | suffix | 8 | sign << 8, x)
                }
            }
        }
        for row: UInt32 in [0x87, 0x84] { add(row, x) }
        for opcode: UInt32 in [0xd4, 0xdc, 0xd7] { for bits: UInt32 in [16, 32, 64] { add(opcode | bits << 8, x) } }
        for row: UInt32 in [0x8bf, 0x10bf, 0x20bf, 0x8bc, 0x10bc] { add(row, x) }
        add(0x07, [.packet, .stack, .value, .lent, .metadata])
        add(0x0f, [.packet, .stack, .value, .lent])
        add(0x17, [.packet, .value])
        add(0x1f, [.packet, .value, .end])
        add(0xbf, [.context, .packet, .stack, .value, .lent, .metadata, .record])
        for kind: UInt32 in [0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0xa, 0xb, 0xc, 0xd] {
            for suffix: UInt32 in [0x05, 0x06] {
                add(kind << 4 | suffix, k)
                add(kind << 4 | suffix | 8, x)
            }
        }
        for row: UInt32 in [0x15, 0x55] { add(row, [.value]) }
        add(0x15, [.record])
        for row: UInt32 in [0x2d, 0x3d, 0xad, 0xbd] { add(row, [.end]) }
        add(0x2d, [.metadata])
        for row: UInt32 in [0x05, 0x06] { add(row, [.forward, .backward]) }
        let memory: [FuzzOperand] = [.packet, .stack, .value, .lent, .record, .metadata]
        for size: UInt32 in [0x00, 0x08, 0x10, 0x18] {
            add(0x61 | size, memory + [.key] + (size == 0 ? [.context] : []))
            if size != 0x18 { add(0x81 | size, memory + [.key]) }
            add(0x62 | size, memory)
            add(0x63 | size, memory)
        }
        for opcode: UInt32 in [0xc3, 0xdb] {
            for kind: UInt32 in [0x00, 0x40, 0x50, 0xa0, 0x01, 0x41, 0x51, 0xa1, 0xe1, 0xf1] { add(opcode | kind << 8, [.stack, .value, .lent, .record]) }
        }
        for row: UInt32 in [0x018, 0x118, 0x218, 0x418, 0x185, 0x95] { add(row, [.none]) }
        return cells + helpers
    }()

    private static let helpers: [FuzzCell] = {
        let tables: [FuzzMap] = [.array, .hash, .own, .ownHash, .lru, .trie]
        let byMap: [(UInt32, [FuzzMap])] = [
            (1, tables + [.global, .outer, .inner]), (2, tables), (3, tables), (87, [.queue, .stack]), (88, [.queue, .stack]), (89, [.queue, .stack]),
            (195, [.own, .ownHash]), (164, [.array, .own, .hash]), (130, [.ring]), (131, [.ring]), (134, [.ring]), (12, [.programs]),
            (25, [.events]), (51, [.devices]),
        ]
        let alone: [UInt32] = [5, 7, 8, 23, 28, 44, 54, 65, 105, 106, 132, 133, 181, 188, 189, 190]
        return byMap.flatMap { number, maps in maps.map { FuzzCell(helper: number, $0) } } + alone.map { FuzzCell(row: FuzzCell.helper($0), .none) }
    }()

    var empty: [FuzzCell] { FuzzHistogram.wanted.filter { counts[$0] == nil } }

    /// A line an instruction: how often on what.
    var table: String {
        let rows = Dictionary(grouping: Set(FuzzHistogram.wanted).union(counts.keys), by: \.row)
        var order: [UInt32: Int] = [:]
        for (place, cell) in FuzzHistogram.wanted.enumerated() where order[cell.row] == nil { order[cell.row] = place }
        return rows.sorted { order[$0.key] ?? .max < order[$1.key] ?? .max }.map { row, cells in
            let name = FuzzText.name(row)
            return name + String(repeating: " ", count: max(1, 18 - name.count))
                + cells.sorted { $0.column < $1.column }.map { "\($0.columnName) \(counts[$0] ?? 0)" }.joined(separator: "  ")
        }.joined(separator: "\n")
    }
}
