internal import Foundation

/// From an object file to a program that may run.
public enum ProgramLoader {
    /// - Parameter program: which one, where the object has several.
    /// - Parameter entries: sizes for maps, by name, instead of the object's.
    public static func load(object path: String, program name: String?, verify: Verification, entries: [String: Int] = [:]) throws(LoadError) -> LoadedProgram {
        try load(object: path, program: name, verify: verify, entries: entries, kernel: .running)
    }

    /// - Parameter kernel: another than the running one, for tests.
    static func load(object path: String, program name: String?, verify: Verification, entries: [String: Int] = [:], kernel: TargetKernel) throws(LoadError) -> LoadedProgram {
        let programs = try prepare(object: path, program: name, verify: verify, entries: entries, kernel: kernel)
        return try ProgramSet(programs[0].object, isSandboxed: verify == .sandbox).load(programs)
    }

    /// Everything up to running: the program asked for, then those its maps start with.
    static func prepare(object path: String, program name: String?, verify: Verification, entries: [String: Int],
                        kernel: TargetKernel = .running) throws(LoadError) -> [LinkedProgram] {
        let (linked, bytes) = try link(object: path, program: name, entries: entries, kernel: kernel)
        let needed = try programs(neededBy: linked)
        // What the engine cannot run it says itself, before the kernel is asked.
        for linked in needed { _ = try Decoder.decode(linked) }
        if verify == .kernel { try KernelVerifier.load(needed, bytes: bytes).compare(needed) }
        return needed
    }

    /// The program, and those that static contents of the object's program arrays name.
    static func programs(neededBy linked: LinkedProgram) throws(LoadError) -> [LinkedProgram] {
        var programs = [linked]
        for map in linked.maps where map.type == MapType.programs {
            for (place, name) in map.initial.sorted(by: { $0.key < $1.key }) where !programs.contains(where: { $0.program.name == name }) {
                guard let function = linked.object.programs.first(where: { $0.name == name }) else {
                    throw linked.error(.malformed, at: nil, "map \(map.name): initial value \(place) is \(name), which is no XDP program")
                }
                programs.append(try Linker.link(function, of: linked.object))
            }
        }
        return programs
    }

    /// The unverified program, and the bytes it was read from: the file is read once, so that what is verified is
    /// what was linked.
    static func link(object path: String, program name: String?, entries: [String: Int] = [:], toRun: Bool = true,
                     kernel: TargetKernel = .running) throws(LoadError) -> (LinkedProgram, [UInt8]) {
        let bytes = try read(path)
        var object = try ObjectFile(name: path, bytes: bytes, for: kernel)
        try object.resize(entries)
        return (try Linker.link(try select(name, of: object), of: object, toRun: toRun), bytes)
    }

    /// The program named, or all XDP programs of an object, to be analysed only.
    static func linkAll(object path: String, program name: String?) throws(LoadError) -> [LinkedProgram] {
        let object = try ObjectFile(name: path, bytes: try read(path))
        if name != nil || object.programs.isEmpty { return [try Linker.link(try select(name, of: object), of: object, toRun: false)] }
        var linked: [LinkedProgram] = []
        for program in object.programs { linked.append(try Linker.link(program, of: object, toRun: false)) }
        return linked
    }

    private static func read(_ path: String) throws(LoadError) -> [UInt8] {
        do {
            return try Array(Data(contentsOf: URL(fileURLWithPath: path)))
        } catch {
            throw LoadError(.unreadable, object: path, "cannot be read: \((error as NSError).localizedDescription)")
        }
    }

    static func select(_ name: String?, of object: ObjectFile) throws(LoadError) -> ObjectFile.Function {
        let programs = object.programs
        let names = programs.map(\.name).joined(separator: ", ")
        guard let first = programs.first else {
            throw LoadError(.noSuchProgram, object: object.name, program: name, "has no XDP program (no section whose name starts with xdp)")
        }
        let chosen: ObjectFile.Function
        if let name {
            guard let found = programs.first(where: { $0.name == name }) else {
                throw LoadError(.noSuchProgram, object: object.name, program: name, "is not in the object, which has \(names)")
            }
            chosen = found
        } else {
            guard programs.count == 1 else {
                throw LoadError(.noSuchProgram, object: object.name, "has several programs, name one of them: \(names)")
            }
            chosen = first
        }
        return chosen
    }
}
