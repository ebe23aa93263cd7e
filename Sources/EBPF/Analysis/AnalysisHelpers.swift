/// What helpers read, write and return. A helper that is not here reads whatever it is given, and writes to no packet:
/// the kernel lists those that do, and they are here.
extension AnalysisEngine {
    enum Result { case number, pureNumber, value, map }

    func helper(_ number: Int32, _ at: Int, _ state: inout AbstractState) -> Bool {
        let r = (0...5).map { operand(UInt8($0), state) }
        switch number {
        case 28: checksumDifference(r, at, &state)
        case 12: return tailCall(r, at, &state)
        case 44: return adjustHead(r[2], at, &state)
        case 54:
            adjusting("bpf_xdp_adjust_meta", r[2], at)
            state.invalidatePackets()
            returned(.number, &state)
        case 65: adjustTail(r[2], at, &state)
        case 189, 190: return copyBytes(r, isStore: number == 190, at, &state)
        case 164, 181: return callBack(number, r, at, &state)
        case 180: giveUp("a callback")
        default: ordinary(number, r, at, &state)
        }
        return limit == nil
    }

    /// Those there are write nothing and answer with an error, whatever they are given.
    func kernelFunction(_ at: Int, _ state: inout AbstractState) -> Bool {
        guard let name = code.linked.kernelFunctions[at], KernelFunction(rawValue: name) != nil else {
            giveUp("a kernel function")
            return false
        }
        returned(.pureNumber, &state)
        return true
    }

    func returned(_ result: Result, _ state: inout AbstractState, maps: UInt64 = 0, labels: UInt64 = 0) {
        var value: AbstractValue
        switch result {
        case .number, .pureNumber: value = .unknown
        case .value, .map:
            value = .pointer(result == .value ? .mapValue : .map)
            value.kinds.insert(.number)
            value.maps = maps
        }
        value.taint(labels)
        set(0, value, &state)
        for register in 1...5 { state.registers[register] = state.registers[register].stale }
    }

    /// Sizes of what a map's keys and values are, or as much as a stack holds where that is not known.
    private func sizes(_ map: AbstractValue) -> (key: Int64, value: Int64) {
        let maps = code.linked.maps
        guard map.kinds == .map, map.maps.nonzeroBitCount == 1, map.maps.trailingZeroBitCount < AbstractValue.lastMap,
              maps.indices.contains(map.maps.trailingZeroBitCount) else { return (512, 1 << 16) }
        let definition = maps[map.maps.trailingZeroBitCount]
        return (Int64(definition.keySize), Int64(definition.valueSize))
    }

    private func type(_ map: AbstractValue) -> UInt32? {
        guard map.maps.nonzeroBitCount == 1, code.linked.maps.indices.contains(map.maps.trailingZeroBitCount) else { return nil }
        return code.linked.maps[map.maps.trailingZeroBitCount].type
    }

    private func ordinary(_ number: Int32, _ r: [AbstractValue], _ at: Int, _ state: inout AbstractState) {
        let name = KernelNames.helper(number)
        func reads(_ register: Int, _ size: Int64) { look(AnalysisBug.has(.arguments) ? 0 : labels(behind: r[register], size: size, at, state), at, "is given to \(name)") }
        func passes(_ registers: Int...) { for register in registers where !AnalysisBug.has(.arguments) { look(r[register].taint, at, "is given to \(name)") } }
        func size(_ register: Int) -> Int64 { Int64(min(r[register].number.ceiling, 1 << 16)) }
        func exactly(_ register: Int) -> ClosedRange<Int64> { r[register].number.constant.map { Int64(min($0, 1 << 16))...Int64(min($0, 1 << 16)) } ?? 0...size(register) }
        var result = Result.number, maps: UInt64 = 0, isPure = false
        for register in 1...2 where r[register].kinds.contains(.map) { look(r[register].taint, at, "chooses a map") }
        switch number {
        case 1, 195:
            if number == 195 { passes(3) }
            reads(2, sizes(r[1]).key)
            // LRU maps remember who looked.
            isPure = [1, 2, 5, 6, 11].contains(type(r[1]) ?? 0)
            let isNested = type(r[1]) == 12 || type(r[1]) == 13
            result = isNested ? .map : .value
            maps = isNested ? 1 << UInt64(AbstractValue.lastMap) : r[1].maps
        case 2:
            reads(2, sizes(r[1]).key)
            reads(3, sizes(r[1]).value)
            passes(4)
        case 3: reads(2, sizes(r[1]).key)
        case 5, 7, 8, 42, 118, 125, 160, 188, 208: isPure = true
        case 6:
            reads(1, size(2))
            passes(2, 3, 4, 5)
        case 23: passes(1, 2)
        case 51: passes(2, 3)
        case 25, 130:     // data, size; packet bytes that perf_event_output adds by its flags may show a seed (C4)
            reads(number == 25 ? 4 : 2, size(number == 25 ? 5 : 3))
            passes(number == 25 ? 3 : 4, number == 25 ? 5 : 3)
        case 69:
            reads(2, size(3))
            passes(3, 4)
            fill(r[2], size: 0...size(3), with: 0, at, &state)
        case 87:
            reads(2, sizes(r[1]).value)
            passes(3)
        case 88, 89:
            let count = sizes(r[1]).value
            fill(r[2], size: (sizes(r[1]).value == 1 << 16 ? 0 : count)...count, with: 0, at, &state)
        case 93, 94, 132, 133: break
        case 131:
            passes(2, 3)
            (result, maps) = (.value, 1 << UInt64(AbstractValue.lastMap))
        case 163:
            passes(2, 4, 5)
            reads(3, 4)
            fill(r[3], size: 4...4, with: 0, at, &state)
        case 182:
            reads(1, size(2))
            reads(3, 64)
            isPure = true
        case 204, 205:     // they hash addresses, ports and sequence numbers
            passes(1, 2, 3)
            isPure = true
        case 206, 207: isPure = true
        default:
            for register in 1...5 {
                if r[register].isNumber { look(r[register].taint, at, "is given to \(name)") }
                else {
                    reads(register, 1 << 16)
                    if r[register].kinds.contains(.stack) { fill(r[register], size: 0...512, with: 0, at, &state) }
                    if r[register].kinds.contains(.packet) { fill(r[register], size: 0...(1 << 16), with: 0, at, &state) }
                }
            }
        }
        if !isPure { look(controlLabels, at, "decides whether \(name) is called") }
        returned(result, &state, maps: maps)
    }

    /// Its result is one more value that derives from the field, no look.
    private func checksumDifference(_ r: [AbstractValue], _ at: Int, _ state: inout AbstractState) {
        func size(_ register: Int) -> Int64 { Int64(min(r[register].number.low32.ceiling, 1 << 16)) }
        let labels = labels(behind: r[1], size: size(2), at, state) | labels(behind: r[3], size: size(4), at, state)
        returned(.pureNumber, &state, labels: AnalysisBug.has(.differences) ? 0 : labels | r[2].taint | r[4].taint | r[5].taint)
    }

    // MARK: The packet's ends

    private func adjusting(_ helper: String, _ argument: AbstractValue, _ at: Int) {
        adjusted(at, helper)
        look(argument.taint, at, "is given to \(helper)")
        look(controlLabels, at, "decides whether \(helper) is called")
    }

    private func delta(_ argument: AbstractValue) -> ClosedRange<Int64> {
        let number = argument.number.low32
        let (low, high) = (Int64(Int32(truncatingIfNeeded: number.min)), Int64(Int32(truncatingIfNeeded: number.max)))
        return low <= high && number.max - number.min < 1 << 31 ? low...high : -(1 << 16)...(1 << 16)
    }

    /// Goes on in two states: done and refused.
    private func adjustHead(_ argument: AbstractValue, _ at: Int, _ state: inout AbstractState) -> Bool {
        adjusting("bpf_xdp_adjust_head", argument, at)
        let delta = delta(argument)
        state.invalidatePackets()
        refused(state, at)
        // Grown bytes are the program's.
        if delta.lowerBound < 0 {
            adjusted(at, "bpf_xdp_adjust_head", grown: state.headLower + delta.lowerBound, state.headUpper)
            state.writtenLower = min(state.writtenLower, state.headLower + delta.lowerBound)
            state.writtenUpper = max(state.writtenUpper, state.headUpper)
        }
        state.headLower = max(state.headLower + delta.lowerBound, -AbstractValue.far)
        state.headUpper = min(state.headUpper + delta.upperBound, AbstractValue.far)
        done(&state, at)
        return false
    }

    /// The way a helper takes that returns an error number and does nothing. Kept apart: ``AbstractState/key``.
    private func refused(_ state: AbstractState, _ at: Int) {
        var state = state
        returned(.number, &state)
        set(0, .number(Scalar(range: (.max - 4095)...(.max))), &state)
        flow(state, to: at + 1, in: context, from: node)
    }

    private func done(_ state: inout AbstractState, _ at: Int) {
        returned(.number, &state)
        set(0, .constant(0), &state)
        flow(state, to: at + 1, in: context, from: node)
    }

    private func adjustTail(_ argument: AbstractValue, _ at: Int, _ state: inout AbstractState) {
        adjusting("bpf_xdp_adjust_tail", argument, at)
        state.invalidatePackets()
        // Grown bytes are zero, and after a cut they may lie anywhere.
        if delta(argument).upperBound > 0 {
            adjusted(at, "bpf_xdp_adjust_tail", grown: -AbstractValue.far, AbstractValue.far)
            clears(at)
            (state.writtenLower, state.writtenUpper) = (-AbstractValue.far, AbstractValue.far)
        }
        returned(.number, &state)
    }

    /// `bpf_xdp_load_bytes` and `bpf_xdp_store_bytes`: offset from data, buffer, length. Goes on in two states: done, and
    /// refused, with nothing copied.
    private func copyBytes(_ r: [AbstractValue], isStore: Bool, _ at: Int, _ state: inout AbstractState) -> Bool {
        refused(state, at)
        look(r[2].taint | r[4].taint, at, "is part of an address")
        let length = Int64(min(r[4].number.low32.ceiling, 1 << 16)), offset = r[2].number.low32
        var packet = AbstractValue.pointer(.packet)
        packet.lower = state.headLower + Int64(offset.min)
        packet.upper = state.headUpper + Int64(offset.max)
        packet.loseAnchor()
        if let sum = r[2].partSum ?? r[2].part.map({ PartSum(part: $0, more: 0) }), state.facts.isHeaderLength(sum.part),
           state.headLower == state.headUpper {
            packet.beyondHeader = state.headLower + sum.more
        }
        let buffer = r[3]
        let isPlain = r[4].number.constant != nil && length <= 512 && buffer.kinds == .stack && buffer.lower == buffer.upper
            && buffer.frame != AbstractValue.anyFrame && buffer.lower >= -512 && buffer.lower + length <= 0
        if isStore { storeBytes(packet, buffer, length, isPlain, at, &state) } else { loadBytes(packet, buffer, length, isPlain, at, &state) }
        done(&state, at)
        return false
    }

    /// Byte by byte where both places are certain, so that what stands beside the field stays what it is.
    private func loadBytes(_ packet: AbstractValue, _ buffer: AbstractValue, _ length: Int64, _ isPlain: Bool, _ at: Int, _ state: inout AbstractState) {
        var first: Int?
        if case .exact(let place, _) = state.facts.overlap(packet, size: length) { first = place }
        let labels = labels(behind: packet, size: length, at, state)
        guard isPlain, labels == 0 || first != nil else {
            return fill(buffer, size: (isPlain ? length : 0)...length, with: labels | controlLabels, at, &state)
        }
        fill(buffer, size: length...length, with: controlLabels, at, &state)
        let isOwn = packet.upper + length > state.writtenLower && packet.lower < state.writtenUpper
        for index in 0..<length {
            let isField = first.map { index == Int64($0) || index == Int64($0) + 1 } ?? false
            let place = packet.lower + index
            let isKnown = packet.lower == packet.upper && !isOwn && place >= 0 && place < Origin.limit
            guard isField || isKnown else { continue }
            var byte = AbstractValue.number(Scalar(bits: 8))
            if isKnown { byte.origins[0] = Int16(place) }
            byte.taint(controlLabels | (isField ? labels : 0), bytes: 1)
            state.store(byte, frame: Int(buffer.frame), at: buffer.lower + index, size: 1)
        }
    }

    /// Bytes that go from the stack to the field are what a store of two bytes would be.
    private func storeBytes(_ packet: AbstractValue, _ buffer: AbstractValue, _ length: Int64, _ isPlain: Bool, _ at: Int, _ state: inout AbstractState) {
        guard isPlain, length > 0, length <= 64 else {
            look(labels(behind: buffer, size: length, at, state) | controlLabels, at, "is stored to other bytes of the packet")
            return fill(packet, size: 0...length, with: 0, at, &state)
        }
        var offset: Int64 = 0
        while offset < length {
            let size = min(8, length - offset)
            var value = AbstractValue.unknown
            value.taint(control: controlLabels)
            for index in 0..<size {
                let byte = state.load(frame: Int(buffer.frame), at: buffer.lower + offset + index, size: 1)
                value.taint(byte.taint, bytes: byte.tainted & 1 != 0 ? 1 << UInt8(index) : 0)
            }
            var place = packet
            place.move(by: offset)
            writePacket(value, place, Int(size), at, &state)
            offset += size
        }
    }

    // MARK: Callbacks

    /// `bpf_for_each_map_elem` and `bpf_loop`: the function is called as often as there are elements, or as it says, or until
    /// one of its answers ends that; or never, where the helper refuses.
    private func callBack(_ number: Int32, _ r: [AbstractValue], _ at: Int, _ state: inout AbstractState) -> Bool {
        guard let function = r[2].function, code.instructions.indices.contains(function) else {
            giveUp("a callback that nobody knows")
            return false
        }
        look(r[1].taint | r[2].taint | r[4].taint, at, "is given to \(KernelNames.helper(number))")
        guard let callee = enter(callSite: at, callback: function) else { return false }
        var first = state
        first.call(back: number == 181 ? [.number(Scalar(bits: 32)), r[3]] : [r[1], key, element(of: r[1]), r[3]])
        flow(first, to: function, in: callee, from: node)
        returned(.number, &state)
        return true
    }

    private func element(of map: AbstractValue) -> AbstractValue {
        var value = AbstractValue.pointer(.mapValue)
        value.maps = map.maps
        return value
    }

    /// Where a map keeps it, or a copy: no access to it is proved.
    private var key: AbstractValue {
        var value = AbstractValue.pointer(.mapValue)
        value.maps = 1 << UInt64(AbstractValue.lastMap)
        return value
    }

    private func tailCall(_ r: [AbstractValue], _ at: Int, _ state: inout AbstractState) -> Bool {
        guard !isCalledBack else {
            giveUp("a tail call in a callback")
            return false
        }
        look(r[3].taint, at, "chooses a tail call")
        var labels: UInt64 = controlLabels
        let map = r[2].maps.nonzeroBitCount == 1 && r[2].kinds == .map ? r[2].maps.trailingZeroBitCount : AbstractValue.lastMap
        let found = map < AbstractValue.lastMap ? targets(map: map, index: r[3].number) : nil
        if let found {
            for target in found {
                guard let entry = enterByTailCall(program: target) else { return false }
                changes(at)
                var next = state
                next.enter()
                flow(next, to: 0, in: entry, from: node)
            }
            if found.isEmpty { labels = 0 }
        } else {
            if !AnalysisBug.has(.unknownSlots) { unknownProgram(at) }
            labels |= state.fieldLabels
        }
        look(labels, at, "decides whether a tail call happens")
        returned(.number, &state)
        return limit == nil
    }
}
