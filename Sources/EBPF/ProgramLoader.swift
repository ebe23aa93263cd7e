internal import Foundation

/// From an object file to a program that may run.
public enum ProgramLoader {
    /// - Parameter program: which one, where the object has several.
    public static func load(object path: String, program name: String?, verify: Verification) throws(LoadError) -> LoadedProgram {
        let (linked, bytes) = try link(object: path, program: name)
        let needed = try programs(neededBy: linked)
        // What the engine cannot run it says itself, before the kernel is asked.
        for linked in needed { _ = try Decoder.decode(linked) }
        if verify == .kernel { try KernelVerifier.load(needed, bytes: bytes).compare(needed) }
        let set = ProgramSet(linked.object, isSandboxed: verify == .sandbox)
        return try set.load(needed)
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
    static func link(object path: String, program name: String?) throws(LoadError) -> (LinkedProgram, [UInt8]) {
        let bytes: [UInt8]
        do {
            bytes = try Array(Data(contentsOf: URL(fileURLWithPath: path)))
        } catch {
            throw LoadError(.unreadable, object: path, "cannot be read: \((error as NSError).localizedDescription)")
        }
        let object = try ObjectFile(name: path, bytes: bytes)
        return (try Linker.link(try select(name, of: object), of: object), bytes)
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
