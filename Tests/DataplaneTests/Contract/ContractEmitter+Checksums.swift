@testable import EBPF

/// Values that are set, and how the checksums follow.
extension ContractEmitter {
    /// A number of 2 or 4 bytes gets a value, and the checksums follow.
    mutating func change(_ base: UInt8, _ offset: Int, _ size: UInt8, to value: UInt32, _ fix: ContractProgram.Fix, inPseudoHeader: Bool) {
        if fix == .early {
            a.load(Assembler.half, 1, 8, field)
            a.store(Assembler.double, 10, -56, 1)
        }
        a.load(size, 2, base, offset)
        a.mov(3, imm: Int32(bitPattern: value))
        if size == Assembler.word {
            a.shl(3, 32)
            a.shr(3, 32)
        }
        a.store(size, base, offset, 3)
        if fix == .none { return }
        let bits: UInt8 = size == Assembler.word ? 32 : 16
        if inPseudoHeader, !isIPv6 {
            a.store(Assembler.double, 10, -64, 2)
            a.store(Assembler.double, 10, -72, 3)
            follow(.folded, 6, 10, bits)
            a.load(Assembler.double, 2, 10, -64)
            a.load(Assembler.double, 3, 10, -72)
        }
        follow(fix, 8, field, bits)
    }

    /// The checksum at `base + offset` follows a change from r2 to r3.
    mutating func follow(_ fix: ContractProgram.Fix, _ base: UInt8, _ offset: Int, _ bits: UInt8) {
        switch fix {
        case .none: return
        case .difference, .chain:
            a.store(Assembler.word, 10, -40, 2)
            a.store(Assembler.word, 10, -36, 3)
            if fix == .difference {
                pointer(1, -40)
                a.mov(2, imm: 4)
                pointer(3, -36)
                a.mov(4, imm: 4)
                a.load(Assembler.half, 5, base, offset)
                a.xor(5, imm: 0xffff)
                a.call(helper: 28)
                a.mov(1, 0)
            } else {
                pointer(1, -40)
                a.mov(2, imm: 4)
                a.mov(3, imm: 0)
                a.mov(4, imm: 0)
                a.mov(5, imm: 0)
                a.call(helper: 28)
                a.mov(5, 0)
                a.mov(1, imm: 0)
                a.mov(2, imm: 0)
                pointer(3, -36)
                a.mov(4, imm: 4)
                a.call(helper: 28)
                a.load(Assembler.half, 1, base, offset)
                a.xor(1, imm: 0xffff)
                a.add(1, 0)
            }
        case .carries:
            a.load(Assembler.half, 1, base, offset)
            a.xor(1, imm: 0xffff)
            for (register, isOld) in [(UInt8(2), true), (3, false)] {
                for part in 0..<(bits / 16) {
                    a.mov(4, register)
                    if part > 0 { a.shr(4, 16) }
                    a.and(4, imm: 0xffff)
                    if isOld { a.xor(4, imm: 0xffff) }
                    a.add(1, 4)
                    let small = a.label()
                    a.jump(.atMost, 1, imm: 0xffff, to: small)
                    a.add(1, imm: -0xffff)
                    a.place(small)
                }
            }
        case .subprogram:
            let function = a.label()
            functions.append((function, offset))
            a.mov(1, base)
            if bits == 32 { fold(2); fold(3) }
            a.call(function)
            return
        case .spilled:
            a.load(Assembler.half, 1, base, offset)
            a.store(Assembler.half, 10, -48, 1)
            a.load(Assembler.byte, 1, 10, -47)
            a.shl(1, 8)
            a.load(Assembler.byte, 4, 10, -48)
            a.emit(0x4f, 1, 4)
            difference(bits)
        case .early:
            a.load(Assembler.double, 1, 10, -56)
            difference(bits)
        case .folded, .loop, .unfolded:
            a.load(Assembler.half, 1, base, offset)
            difference(bits)
        }
        switch fix {
        case .loop:
            let again = a.label(), done = a.label()
            a.place(again)
            a.mov(2, 1)
            a.shr(2, 16)
            a.jump(.equal, 2, imm: 0, to: done)
            a.and(1, imm: 0xffff)
            a.add(1, 2)
            a.jump(to: again)
            a.place(done)
        case .carries: break
        case .unfolded:
            a.mov(2, 1)
            a.shr(2, 32)
            a.shl(1, 32)
            a.shr(1, 32)
            a.add(1, 2)
            fold(1)
        default: fold(1)
        }
        a.xor(1, imm: 0xffff)
        a.store(Assembler.half, base, offset, 1)
    }

    /// r1, a checksum, becomes the sum that RFC 1624 folds: ~HC + ~m + m'.
    mutating func difference(_ bits: UInt8) {
        a.xor(1, imm: 0xffff)
        if bits == 16 { a.xor(2, imm: 0xffff) } else {
            a.mov(4, imm: -1)
            a.shr(4, 32)
            a.emit(0xaf, 2, 4)
        }
        a.add(1, 2)
        a.add(1, 3)
    }

    /// Of up to 48 bits.
    mutating func fold(_ register: UInt8) {
        for _ in 0..<4 {
            a.mov(0, register)
            a.shr(0, 16)
            a.and(register, imm: 0xffff)
            a.add(register, 0)
        }
    }

    mutating func pointer(_ register: UInt8, _ offset: Int32) {
        a.mov(register, 10)
        a.add(register, imm: offset)
    }

    /// r1: a header, r2 and r3: 16-bit numbers.
    mutating func function(_ label: Assembler.Label, _ field: Int) {
        a.place(label)
        a.load(Assembler.half, 4, 1, field)
        a.xor(4, imm: 0xffff)
        a.xor(2, imm: 0xffff)
        a.add(4, 2)
        a.add(4, 3)
        fold(4)
        a.xor(4, imm: 0xffff)
        a.store(Assembler.half, 1, field, 4)
        a.mov(0, imm: 0)
        a.exit()
    }

    mutating func ttl(_ isKept: Bool) {
        let at = isIPv6 ? 7 : 8
        a.load(Assembler.byte, 1, 6, at)
        a.add(1, imm: -1)
        a.store(Assembler.byte, 6, at, 1)
        guard isKept, !isIPv6 else { return }
        // ~m + m' of a byte that falls by one is 0xfeff: the field grows by 0x0100.
        a.load(Assembler.half, 1, 6, 10)
        a.add(1, imm: 1)
        fold(1)
        a.store(Assembler.half, 6, 10, 1)
    }

    mutating func portUnlessZero(_ value: UInt16, _ writesOnes: Bool) {
        let bare = a.label()
        a.load(Assembler.half, 2, 8, 2)
        a.store(Assembler.half, 8, 2, imm: Int32(value))
        a.load(Assembler.half, 1, 8, field)
        a.jump(.equal, 1, imm: 0, to: bare)
        a.mov(3, imm: Int32(value))
        difference(16)
        fold(1)
        a.xor(1, imm: 0xffff)
        if writesOnes { onesForZero() }
        a.store(Assembler.half, 8, field, 1)
        a.place(bare)
    }

    /// r1: a computed UDP checksum, whose zero is written as ones (RFC 768).
    private mutating func onesForZero() {
        let some = a.label()
        a.jump(.notEqual, 1, imm: 0, to: some)
        a.mov(1, imm: 0xffff)
        a.place(some)
    }

    /// A port and what follows, of which one store is either the new checksum or a zero.
    mutating func eitherZero(_ value: UInt16) {
        let keeps = a.label()
        a.load(Assembler.half, 1, 8, field)
        a.load(Assembler.half, 2, 8, 2)
        a.mov(3, imm: Int32(value))
        a.store(Assembler.half, 8, 2, 3)
        difference(16)
        fold(1)
        a.xor(1, imm: 0xffff)
        a.load(Assembler.half, 2, 8, 0)
        a.and(2, imm: 0x100)
        a.jump(.equal, 2, imm: 0, to: keeps)
        a.mov(1, imm: 0)
        a.place(keeps)
        a.store(Assembler.half, 8, field, 1)
    }

    /// r3: bytes of the L4 datagram.
    mutating func transportLength() {
        if !isTCP {
            a.load(Assembler.half, 3, 8, 4)
            a.swap(3, bits: 16)
        } else {
            a.load(Assembler.half, 3, 6, isIPv6 ? 4 : 2)
            a.swap(3, bits: 16)
            if !isIPv6 {
                a.load(Assembler.byte, 1, 6, 0)
                a.and(1, imm: 15)
                a.shl(1, 2)
                if parse == .options { a.emit(0x1f, 3, 1) } else { a.add(3, imm: -20) }
            }
        }
        a.and(3, imm: 0x3fff)
    }

    /// r0: sum over the datagram and its pseudo-header, not folded. Jumps where it is not all there.
    mutating func sum(else out: Assembler.Label) {
        transportLength()
        a.mov(4, 8)
        a.add(4, 3)
        a.jump(.above, 4, 7, to: out)
        a.swap(3, bits: 16)
        a.mov(0, 3)
        a.add(0, imm: isTCP ? 0x0600 : 0x1100)
        for at in stride(from: isIPv6 ? 8 : 12, to: isIPv6 ? 40 : 20, by: 2) {
            a.load(Assembler.half, 1, 6, at)
            a.add(0, 1)
        }
        let again = a.label(), odd = a.label(), done = a.label()
        a.mov(5, 8)
        a.place(again)
        a.mov(3, 5)
        a.add(3, imm: 2)
        a.jump(.above, 3, 4, to: odd)
        a.load(Assembler.half, 1, 5, 0)
        a.add(0, 1)
        a.mov(5, 3)
        a.jump(to: again)
        a.place(odd)
        a.jump(.atLeast, 5, 4, to: done)
        a.load(Assembler.byte, 1, 5, 0)
        a.add(0, 1)
        a.place(done)
    }

    mutating func fromScratch() {
        let out = a.label()
        transportLength()
        a.mov(4, 8)
        a.add(4, 3)
        a.jump(.above, 4, 7, to: out)
        a.store(Assembler.half, 8, field, imm: 0)
        sum(else: out)
        a.mov(1, 0)
        fold(1)
        a.xor(1, imm: 0xffff)
        if !isTCP { onesForZero() }
        a.store(Assembler.half, 8, field, 1)
        a.place(out)
    }

    mutating func roundTrip(_ trip: ContractProgram.Trip) {
        switch trip {
        case .self_: a.load(Assembler.half, 1, 8, field)
        case .swaps:
            a.load(Assembler.half, 1, 8, field)
            a.swap(1, bits: 16)
            a.swap(1, bits: 16)
        case .stack:
            a.load(Assembler.half, 1, 8, field)
            a.store(Assembler.double, 10, -32, 1)
            a.load(Assembler.half, 1, 10, -32)
        case .bytes:
            a.load(Assembler.byte, 1, 8, field + 1)
            a.shl(1, 8)
            a.load(Assembler.byte, 2, 8, field)
            a.emit(0x4f, 1, 2)
        }
        a.store(Assembler.half, 8, field, 1)
    }

    mutating func payload(_ at: Int, _ value: UInt8, _ isKept: Bool) {
        let out = a.label(), place = headerBytes + at & ~1
        bounds(8, place + 2, else: out)
        a.load(Assembler.half, 2, 8, place)
        a.store(Assembler.byte, 8, place, imm: Int32(value))
        a.load(Assembler.half, 3, 8, place)
        if isKept { follow(.folded, 8, field, 16) }
        a.place(out)
    }

    mutating func lookup(else out: Assembler.Label) {
        a.map(1, 0)
        pointer(2, -4)
        a.call(helper: 1)
        a.jump(.equal, 0, imm: 0, to: out)
    }

    mutating func count(_ byPort: Bool) {
        let out = a.label()
        a.store(Assembler.word, 10, -4, imm: 0)
        if byPort {
            a.load(Assembler.half, 1, 8, 0)
            a.and(1, imm: 3)
            a.store(Assembler.word, 10, -4, 1)
        }
        lookup(else: out)
        a.mov(1, imm: 1)
        a.emit(0xdb, 0, 1)
        a.place(out)
    }

    mutating func macSwap() {
        for at in stride(from: 0, to: 6, by: 2) {
            a.load(Assembler.half, 1, 6, at - l3)
            a.load(Assembler.half, 2, 6, at + 6 - l3)
            a.store(Assembler.half, 6, at - l3, 2)
            a.store(Assembler.half, 6, at + 6 - l3, 1)
        }
    }
}
