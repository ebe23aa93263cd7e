/// What the walk found, as what the engine and its users are told.
extension AnalysisEngine {
    func result() -> Analysis {
        let root = codes[0].linked
        if let limit { return .worst(root, limit) }
        var result = Analysis()
        result.programs = codes.map(\.linked.program.name)
        result.steps = steps
        result.states = nodes.count
        let order: (Site, Site) -> Bool = { ($0.program, $0.instruction) < ($1.program, $1.instruction) }
        for (site, range) in stores.sorted(by: { order($0.key, $1.key) }) where site.program == 0 {
            result.stores.append(.init(instruction: site.instruction, fromData: range.data, fromL3: range.isL3Certain ? range.l3 : nil, isField: range.isField, isCertain: range.isCertain))
        }
        for (site, found) in adjustments.sorted(by: { order($0.key, $1.key) }) where site.program == 0 {
            result.adjustments.append(.init(instruction: site.instruction, helper: found.helper, grown: found.grown))
        }
        result.writesElsewhere = !unknownTailCalls.isEmpty || stores.keys.contains { $0.program != 0 }
            || adjustments.contains { $0.key.program != 0 && $0.value.helper != "bpf_xdp_adjust_meta" }
        for (site, label) in readSites.sorted(by: { order($0.key, $1.key) }) {
            result.reads.append(.init(program: site.program, instruction: site.instruction, isLook: label & lookLabels != 0,
                                      isUDP: fields[site]?.count == 1 ? fields[site]?.first ?? nil : nil))
        }
        for (site, reason) in sinks.sorted(by: { order($0.key, $1.key) }) {
            result.sinks.append(.init(program: site.program, instruction: site.instruction, reason: reason))
        }
        result.unknownTailCalls = unknownTailCalls.filter { $0.program == 0 }.map(\.instruction).sorted()
        result.comparisons = comparisons.filter { $0.key.program == 0 && $0.value & lookLabels != 0 }.map(\.key.instruction).sorted()
        let points = completions()
        result.completions = points.keys.sorted()
        result.conditional = points.filter { !$0.value }.keys.sorted()
        result.mayClearField = !clearing.isEmpty || !unknownTailCalls.isEmpty
        let count = root.instructions.count
        result.isProvedInBounds = [Bool](repeating: false, count: count)
        for site in accesses where site.program == 0 && !unproved.contains(site) { result.isProvedInBounds[site.instruction] = true }
        result.marks = [Marks](repeating: [], count: count)
        for at in result.completions {
            let i = root.instructions[at]
            result.marks[at].insert(i.instructionClass == 1 ? .completeIfField : .complete)
        }
        for site in clearing where site.program == 0 { result.marks[site.instruction].insert(.clears) }
        for at in result.unknownTailCalls { result.marks[at].insert(.clears) }
        if result.isReadOnly {
            for site in packetReads where site.program == 0 {
                result.marks[site.instruction].insert(root.instructions[site.instruction].instructionClass == 1 ? .completeOpaqueIfField : .completeOpaque)
            }
            // It may move the packet inside its buffer, and completion works on the packet where it arrived.
            if !packetReads.isEmpty { for adjustment in result.adjustments { result.marks[adjustment.instruction].insert(.completeOpaque) } }
        }
        return result
    }

    private func isLook(_ event: Event) -> Bool { event.isUnknownProgram || event.readLabels & lookLabels != 0 }

    /// Contract section 4: before the first change from which a look is still reachable, and at the look where none
    /// comes before. And of each, whether it completes any packet, or only one whose field it reads.
    private func completions() -> [Int: Bool] {
        var predecessors = [[Int]](repeating: [], count: nodes.count)
        for (index, node) in nodes.enumerated() { for next in node.successors { predecessors[next].append(index) } }
        // A look lies in the node or ahead of it.
        var isAhead = [Bool](repeating: false, count: nodes.count)
        var stack = nodes.indices.filter { nodes[$0].events.values.contains(where: isLook) }
        for index in stack { isAhead[index] = true }
        while let index = stack.popLast() {
            for before in predecessors[index] where !isAhead[before] {
                isAhead[before] = true
                stack.append(before)
            }
        }
        var points: [Int: Bool] = [:], seen: Set<Int> = [0]
        stack = [0]
        while let index = stack.popLast() {
            let (found, isCertain) = self.points(in: nodes[index], isAheadOfEnd: nodes[index].successors.contains { isAhead[$0] })
            if contexts[nodes[index].place.context].program == 0 {
                for at in found { points[at, default: false] = points[at] == true || isCertain && at == found.last }
            }
            if isCertain { continue }
            for next in nodes[index].successors where seen.insert(next).inserted { stack.append(next) }
        }
        return points
    }

    /// The points of a block up to one behind which every partial packet is complete, and whether there is one.
    private func points(in node: Node, isAheadOfEnd: Bool) -> (points: [Int], isCertain: Bool) {
        var found: [Int] = []
        let events = node.events.sorted { $0.key < $1.key }
        for (position, (at, event)) in events.enumerated() {
            let isFollowed = isAheadOfEnd || events[(position + 1)...].contains { isLook($0.value) }
            // A closed read counts, too: its value may be stored back behind the look, into a finished packet.
            if isLook(event) || event.readLabels != 0 && isFollowed {
                found.append(at)
                if event.isCertain || event.isUnknownProgram { return (found, true) }
            } else if event.isChange, isFollowed {
                found.append(at)
                return (found, true)
            }
        }
        return (found, false)
    }
}
