/// What the analysis found, for the author of a program: sentences with source lines, and the same as data.
public struct Explanation: Encodable, Sendable {
    public struct Place: Encodable, Sendable {
        public let instruction: Int
        public let source: String?
    }

    public struct Store: Encodable, Sendable {
        public let at: Place
        /// First byte and the one behind the last, from the L3 header where the program made sure of it.
        public let fromL3, fromData: [Int32]?
        /// It is the checksum field.
        public let field: Bool
    }

    public struct Adjustment: Encodable, Sendable {
        public let at: Place
        public let helper: String
    }

    public struct Read: Encodable, Sendable {
        public let at: Place
        public let look: Bool
    }

    public struct Look: Encodable, Sendable {
        public let at: Place
        public let reason: String
    }

    public let object, program, section: String
    public let instructions: Int
    public let sentences: [String]
    public let readOnly, canLook: Bool
    /// Why nothing better could be said.
    public let limit: String?
    public let stores: [Store]
    public let adjustments: [Adjustment]
    public let reads: [Read]
    public let looks: [Look]
    public let completions: [Place]
    /// Of `completions`: those that complete only a packet whose field they read.
    public let conditional: [Place]
    public let unknownTailCalls: [Place]
    /// Accesses to memory, and how many of them need no check.
    public let accesses, provedInBounds: Int
    public let states, steps: Int

    enum CodingKeys: String, CodingKey {
        case object, program, section, instructions, sentences, limit, stores, adjustments, reads, looks, completions, conditional, accesses, states, steps
        case readOnly = "read_only", canLook = "can_look", unknownTailCalls = "unknown_tail_calls", provedInBounds = "proved_in_bounds"
    }

    /// Explains a program of an object, or all of them. Nothing is loaded into the kernel, and nothing runs.
    public static func of(object path: String, program name: String?) throws(LoadError) -> [Explanation] {
        var explanations: [Explanation] = []
        let linked = try ProgramLoader.linkAll(object: path, program: name)
        for program in linked {
            // Others of the object that its program arrays name; an array that names none may hold anything one day.
            let slots = ProgramSet.initial((try? ProgramLoader.programs(neededBy: program)) ?? [program])
            explanations.append(Explanation(program, .of(program) { _, map in slots[map].map { .known($0) } ?? .unknown }))
        }
        return explanations
    }

    init(_ program: LinkedProgram, _ analysis: Analysis) {
        func place(_ instruction: Int) -> Place { Place(instruction: instruction, source: program.source(instruction)?.short) }
        func range(_ range: ByteRange) -> [Int32] { [range.lower, range.upper] }
        object = program.object.name
        self.program = program.program.name
        section = program.section
        instructions = program.instructions.count
        readOnly = analysis.isReadOnly
        canLook = analysis.canLook
        limit = analysis.limit
        stores = analysis.stores.map { store in
            Store(at: place(store.instruction), fromL3: store.fromL3.map(range), fromData: store.fromL3 == nil ? range(store.fromData) : nil, field: store.isField)
        }
        adjustments = analysis.adjustments.map { Adjustment(at: place($0.instruction), helper: $0.helper) }
        reads = analysis.reads.filter { $0.program == 0 }.map { Read(at: place($0.instruction), look: $0.isLook) }
        looks = analysis.sinks.filter { $0.program == 0 }.map { Look(at: place($0.instruction), reason: $0.reason) }
        completions = analysis.completions.map(place)
        conditional = analysis.conditional.map(place)
        unknownTailCalls = analysis.unknownTailCalls.map(place)
        accesses = program.instructions.enumerated().count { $0.element.instructionClass >= 1 && $0.element.instructionClass <= 3 }
        provedInBounds = analysis.isProvedInBounds.count { $0 }
        (states, steps) = (analysis.states, analysis.steps)
        sentences = Wording(program, analysis).sentences
    }
}

extension SourceLine {
    /// File name and line, as compilers say it to people.
    public var short: String { "\(file.split(separator: "/").last ?? Substring(file)):\(line)" }
}

/// The sentences. Each says what the program does first, and then what that costs.
private struct Wording {
    let program: LinkedProgram
    let analysis: Analysis

    init(_ program: LinkedProgram, _ analysis: Analysis) {
        self.program = program
        self.analysis = analysis
    }

    var sentences: [String] {
        if let limit = analysis.limit { return ["cannot be followed (\(limit)): every partial packet is completed before it runs"] }
        var result: [String] = []
        if analysis.isReadOnly, !analysis.canLook {
            let closed = analysis.reads.map(\.instruction)
            result.append(closed.isEmpty ? "reads only: checksums are never touched"
                : "reads only; what it asks of the checksum field at \(places(closed)) has the same answer before it is finished: checksums are never touched")
        } else {
            result += changes + looks
        }
        if !analysis.unknownTailCalls.isEmpty {
            result.append("goes on in another program at \(places(analysis.unknownTailCalls)); what that is is not known here, so it counts as a look: partial packets are completed before \(completions)")
        }
        return result
    }

    private var changes: [String] {
        if analysis.isReadOnly { return ["does not write to packets"] }
        var result: [String] = []
        let groups = Dictionary(grouping: analysis.stores, by: what)
        let writes = groups.sorted { ($0.value[0].instruction, $0.key) < ($1.value[0].instruction, $1.key) }
            .map { "\($0.key) at \(places($0.value.map(\.instruction)))" }
        let keeps = analysis.stores.contains(where: \.isField)
        if !writes.isEmpty {
            let cost: String
            if analysis.canLook { cost = "" }
            else if keeps && !analysis.reads.isEmpty && analysis.mayClearField { cost = ", keeps the checksum by difference or says there is none: no full checksum" }
            else if keeps && !analysis.reads.isEmpty { cost = ", keeps the checksum by difference: no full checksum" }
            else if keeps { cost = ", sets the checksum itself: no full checksum for partial packets" }
            else if analysis.adjustments.isEmpty, groups.keys.allSatisfy({ $0 == Wording.link }) { cost = ", which no checksum covers" }
            else { cost = ", leaves the checksum to Apus, which mends it by difference" }
            result.append("rewrites \(writes.joined(separator: ", "))\(cost)")
        }
        for (helper, end) in [("bpf_xdp_adjust_head", "the head"), ("bpf_xdp_adjust_tail", "the tail"), ("bpf_xdp_adjust_meta", "the metadata")] {
            let here = analysis.adjustments.filter { $0.helper == helper }.map(\.instruction)
            if !here.isEmpty { result.append("moves \(end) at \(places(here))") }
        }
        return result
    }

    private var looks: [String] {
        let reads = analysis.reads.filter { $0.isLook && $0.program == 0 }.map(\.instruction)
        let elsewhere = analysis.reads.contains { $0.isLook && $0.program != 0 }
        if elsewhere { return ["goes on in a program that looks at the checksum: partial packets are completed before \(completions)"] }
        guard !reads.isEmpty else { return [] }
        if analysis.conditional == analysis.completions {
            return ["reads at \(places(analysis.conditional)) what may be the checksum field in some packets: a partial packet is completed where it is, and stays partial otherwise"]
        }
        let compared = analysis.comparisons
        let kinds = Set(analysis.reads.filter { $0.isLook && $0.program == 0 }.map(\.isUDP))
        let whose = kinds == [true] ? "UDP checksum" : kinds == [false] ? "TCP checksum" : "checksum"
        let verb = !compared.isEmpty ? "compares the \(whose) at \(places(compared))" : "uses the \(whose) read at \(places(reads))"
        let why = Set(analysis.sinks.map(\.reason)).sorted().joined(separator: ", ")
        return ["\(verb), and it \(why): partial packets are completed before \(completions)"]
    }

    private static let link = "the Ethernet header"

    /// One of the same file as the looks is said by its line alone.
    private var completions: String {
        let sources = analysis.completions.compactMap(program.source)
        let files = Set((analysis.comparisons + analysis.reads.filter { $0.program == 0 }.map(\.instruction)).compactMap { program.source($0)?.file })
        let lines = Set(sources.map(\.line))
        guard let only = sources.first, lines.count == 1, sources.count == analysis.completions.count, files == [only.file] else { return places(analysis.completions) }
        return "line \(only.line)"
    }

    private func what(_ store: Analysis.Store) -> String {
        if store.isField { return "the checksum" }
        if store.fromData.lower >= 0, store.fromData.upper <= 14 { return Wording.link }
        guard let range = store.fromL3 else { return "bytes" }
        switch (range.lower, range.upper) {
        case (_, ...0): return "what is in front of the IP header"
        case (12..., ...20),
             (8..., ...40) where range.lower == 8 && range.upper > 20: return "addresses"
        case (20..., ...64): return "the L4 header"
        case (0..., ...20): return "the IP header"
        default: return "bytes"
        }
    }

    /// Source lines, each once; instructions where there are none.
    private func places(_ instructions: [Int]) -> String {
        var seen: [String] = []
        var file = ""
        for instruction in instructions {
            let source = program.source(instruction)
            let text = source?.short ?? "instruction \(instruction)"
            if !seen.contains(text) { seen.append(text) }
            file = source?.file ?? file
        }
        let shown = seen.prefix(6).joined(separator: ", ")
        return seen.count > 6 ? "\(shown) and \(seen.count - 6) more places" : shown
    }
}
