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

    /// Contract section 4: before the first change from which a look is still reachable, and at the look where none
    /// comes before. And of each, whether it completes any packet, or only one whose field it reads.
    ///
    /// States are kept apart, marks are not: what is marked for one way completes on every way that comes along, so it
    /// counts there as a look does, and the changes before it are marked in turn.
    private func completions() -> [Int: Bool] {
        var predecessors = [[Int]](repeating: [], count: nodes.count)
        for (index, node) in nodes.enumerated() { for next in node.successors { predecessors[next].append(index) } }
        var marked: Set<Site> = []
        while true {
            let points = self.points(marked: marked, predecessors)
            guard marked.isSuperset(of: points.keys) || AnalysisBug.has(.oneWayMarks) else {
                marked.formUnion(points.keys)
                continue
            }
            var own: [Int: Bool] = [:]
            for (site, isCertain) in points where site.program == 0 { own[site.instruction] = isCertain }
            return own
        }
    }

    private func points(marked: Set<Site>, _ predecessors: [[Int]]) -> [Site: Bool] {
        // A look lies in the node or ahead of it.
        var isAhead = [Bool](repeating: false, count: nodes.count)
        var stack = nodes.indices.filter { index in nodes[index].events.contains { isLook($0.value, Site(program: program(of: nodes[index]), instruction: $0.key), marked) } }
        for index in stack { isAhead[index] = true }
        while let index = stack.popLast() {
            for before in predecessors[index] where !isAhead[before] {
                isAhead[before] = true
                stack.append(before)
            }
        }
        var points: [Site: Bool] = [:], seen: Set<Int> = [0]
        stack = [0]
        while let index = stack.popLast() {
            let (found, isCertain) = self.points(in: nodes[index], marked: marked, isAheadOfEnd: nodes[index].successors.contains { isAhead[$0] })
            for site in found { points[site, default: false] = points[site] == true || isCertain && site == found.last }
            if isCertain { continue }
            for next in nodes[index].successors where seen.insert(next).inserted { stack.append(next) }
        }
        return points
    }

    /// The points of a block up to one behind which every partial packet is complete, and whether there is one.
    private func points(in node: Node, marked: Set<Site>, isAheadOfEnd: Bool) -> (points: [Site], isCertain: Bool) {
        var found: [Site] = []
        let program = program(of: node)
        let events = node.events.map { (site: Site(program: program, instruction: $0.key), event: $0.value) }.sorted { $0.site.instruction < $1.site.instruction }
        for (position, (site, event)) in events.enumerated() {
            let isFollowed = isAheadOfEnd || events[(position + 1)...].contains { isLook($0.event, $0.site, marked) }
            // A closed read counts, too: its value may be stored back behind the look, into a finished packet.
            if event.isLook(lookLabels) || event.isOwnRead && isLook(event, site, marked) || event.readLabels != 0 && isFollowed && !AnalysisBug.has(.closedReads) {
                found.append(site)
                if event.isCertain || event.isUnknownProgram { return (found, true) }
            } else if event.isChange, isFollowed || marked.contains(site), !AnalysisBug.has(.lookAlone) {
                found.append(site)
                return (found, true)
            }
        }
        return (found, false)
    }

    private func program(of node: Node) -> Int { contexts[node.place.context].program }

    /// Whether anything completes at this event, on its way or on another. Where another program completes, its own
    /// analysis says; what it reads counts, whoever wrote it.
    private func isLook(_ event: Event, _ site: Site, _ marked: Set<Site>) -> Bool {
        event.isLook(lookLabels) || marked.contains(site) || event.isOwnRead && site.program != 0
    }
}

extension AnalysisEngine.Event {
    func isLook(_ lookLabels: UInt64) -> Bool { isUnknownProgram || readLabels & lookLabels != 0 }
}
