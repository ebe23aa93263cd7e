@testable import EBPF

/// The packet's ends: heads and tails that move, and what is put around a packet or taken off.
extension ContractEmitter {
    mutating func adjustHead(_ delta: Int32) {
        a.mov(1, 9)
        a.mov(2, imm: delta)
        a.call(helper: 44)
        a.jump(.notEqual, 0, imm: 0, to: drops)
        a.load(Assembler.word, 6, 9, 0)
        a.load(Assembler.word, 7, 9, 4)
    }

    mutating func copyMAC(from: Int) {
        for at in stride(from: 0, to: 12, by: 4) {
            a.load(Assembler.word, 1, 6, from + at)
            a.store(Assembler.word, 6, at, 1)
        }
    }

    mutating func vlanPush(_ tag: UInt16) {
        guard l3 == 14 else { return }
        adjustHead(-4)
        bounds(6, 18, else: drops)
        copyMAC(from: 4)
        a.store(Assembler.half, 6, 12, imm: 0x0081)
        a.store(Assembler.half, 6, 14, imm: Int32(tag.byteSwapped))
        l3 += 4
        reload()
    }

    /// The last two bytes of a UDP datagram go, and its lengths and checksum follow.
    mutating func trim() {
        guard !isTCP else { return }
        let out = a.label()
        transportLength()
        a.mov(1, 3)
        a.and(1, imm: 1)
        a.jump(.notEqual, 1, imm: 0, to: out)
        a.jump(.below, 3, imm: 12, to: out)
        a.mov(4, 8)
        a.add(4, 3)
        a.jump(.notEqual, 4, 7, to: out)
        a.load(Assembler.half, 2, 4, -2)
        a.mov(3, imm: 0)
        follow(.folded, 8, 6, 16)
        // The length stands in the header and in the pseudo-header.
        a.load(Assembler.half, 2, 8, 4)
        a.mov(3, 2)
        a.swap(3, bits: 16)
        a.add(3, imm: -2)
        a.swap(3, bits: 16)
        a.store(Assembler.half, 8, 4, 3)
        a.store(Assembler.double, 10, -64, 2)
        a.store(Assembler.double, 10, -72, 3)
        follow(.folded, 8, 6, 16)
        a.load(Assembler.double, 2, 10, -64)
        a.load(Assembler.double, 3, 10, -72)
        follow(.folded, 8, 6, 16)
        a.load(Assembler.half, 2, 6, isIPv6 ? 4 : 2)
        a.mov(3, 2)
        a.swap(3, bits: 16)
        a.add(3, imm: -2)
        a.swap(3, bits: 16)
        a.store(Assembler.half, 6, isIPv6 ? 4 : 2, 3)
        if !isIPv6 { follow(.folded, 6, 10, 16) }
        a.mov(1, 9)
        a.mov(2, imm: -2)
        a.call(helper: 65)
        a.jump(.notEqual, 0, imm: 0, to: drops)
        reload()
        a.place(out)
    }

    /// A 20-byte IPv4 header at r6 + 14, `total` bytes from r3; then its checksum.
    mutating func outerHeader(proto: Int32) {
        a.store(Assembler.half, 6, 14, imm: 0x0045)
        a.store(Assembler.half, 6, 16, 3)
        a.store(Assembler.word, 6, 18, imm: 0)
        a.store(Assembler.half, 6, 22, imm: 64 | proto << 8)
        a.store(Assembler.half, 6, 24, imm: 0)
        a.store(Assembler.word, 6, 26, imm: 0x0100_000a)
        a.store(Assembler.word, 6, 30, imm: 0x0900_000a)
        a.mov(1, imm: 0)
        for at in stride(from: 14, to: 34, by: 2) {
            a.load(Assembler.half, 2, 6, at)
            a.add(1, 2)
        }
        fold(1)
        a.xor(1, imm: 0xffff)
        a.store(Assembler.half, 6, 24, 1)
    }

    mutating func encapsulate() {
        guard l3 == 14 else { return a.jump(to: passes) }
        adjustHead(-20)
        bounds(6, 54, else: drops)
        copyMAC(from: 20)
        a.store(Assembler.half, 6, 12, imm: 0x0008)
        a.load(Assembler.half, 3, 6, 36)
        a.swap(3, bits: 16)
        a.add(3, imm: 20)
        a.swap(3, bits: 16)
        outerHeader(proto: 4)
        a.mov(0, imm: 3)
        a.exit()
    }

    mutating func decapsulate() {
        guard l3 == 14 else { return a.jump(to: passes) }
        a.load(Assembler.byte, 1, 6, 0)
        a.jump(.notEqual, 1, imm: 0x45, to: passes)
        for at in stride(from: 0, to: 12, by: 4) {
            a.load(Assembler.word, 1, 6, at - 14)
            a.store(Assembler.word, 10, at - 80, 1)
        }
        adjustHead(20)
        bounds(6, 34, else: drops)
        for at in stride(from: 0, to: 12, by: 4) {
            a.load(Assembler.word, 1, 10, at - 80)
            a.store(Assembler.word, 6, at, 1)
        }
        a.store(Assembler.half, 6, 12, imm: 0x0008)
        a.jump(to: passes)
    }

    mutating func quote(_ count: Int) {
        guard l3 == 14 else { return a.jump(to: passes) }
        bounds(6, count)
        a.mov(4, 6)
        a.add(4, imm: -14)
        a.mov(3, 7)
        a.emit(0x1f, 3, 4)
        a.mov(2, imm: Int32(14 + count))
        a.emit(0x1f, 2, 3)
        a.mov(1, 9)
        a.call(helper: 65)
        a.jump(.notEqual, 0, imm: 0, to: drops)
        adjustHead(-28)
        bounds(6, 42 + count, else: drops)
        copyMAC(from: 28)
        a.store(Assembler.half, 6, 12, imm: 0x0008)
        a.mov(3, imm: Int32(UInt16(28 + count).byteSwapped))
        outerHeader(proto: 1)
        a.store(Assembler.word, 6, 34, imm: 0x0403)
        a.store(Assembler.word, 6, 38, imm: 0xdc05 << 8)
        a.mov(1, imm: 0)
        a.mov(2, imm: 0)
        a.mov(3, 6)
        a.add(3, imm: 34)
        a.mov(4, imm: Int32(8 + count))
        a.mov(5, imm: 0)
        a.call(helper: 28)
        a.mov(1, 0)
        fold(1)
        a.xor(1, imm: 0xffff)
        a.store(Assembler.half, 6, 36, 1)
        a.mov(0, imm: 3)
        a.exit()
    }
}
