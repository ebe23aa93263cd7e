internal import Foundation

/// From an object file to a program that may run.
public enum ProgramLoader {
    /// - Parameter program: which one, where the object has several.
    public static func load(object path: String, program name: String?, verify: Verification) throws(LoadError) -> LoadedProgram {
        guard verify == .kernel else {
            throw LoadError(.unavailable, object: path, program: name, "verify = sandbox does not exist yet: use verify = kernel")
        }
        let (linked, bytes) = try link(object: path, program: name)
        // What the engine cannot run it says itself, before the kernel is asked.
        _ = try Decoder.decode(linked)
        try KernelVerifier.load(linked, bytes: bytes).compare(linked)
        return try LoadedProgram(linked)
    }

    /// The unverified program, and the bytes it was read from: the file is read once, so that what is verified is
    /// what was linked.
    static func link(object path: String, program name: String?, toRun: Bool = true) throws(LoadError) -> (LinkedProgram, [UInt8]) {
        let bytes = try read(path)
        let object = try ObjectFile(name: path, bytes: bytes)
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
        let section = object.sections[chosen.section].name
        if section.hasSuffix("/devmap") || section.hasSuffix("/cpumap") {
            throw LoadError(.unsupported, object: object.name, program: chosen.name, "section \(section): programs of device and CPU maps are not supported yet")
        }
        return chosen
    }
}
