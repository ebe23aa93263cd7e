/// What the kernel provides: its functions, its symbols, its settings.
extension Linker {
    mutating func callKernel(_ name: String, _ at: Int) throws(LoadError) {
        guard let external = object.externals.byName[name], case .function(let prototype) = external.kind else {
            throw linked.error(.malformed, at: at, "calls \(name), of which the object has no declaration with types: compile with -g")
        }
        let id = try function(external, prototype, at)
        linked.instructions[at].source = PseudoSource.kernelFunction
        linked.instructions[at].offset = 0
        linked.instructions[at].immediate = Int32(bitPattern: id ?? 0)
        linked.kernelFunctions[at] = name
        if id != nil { return }
        if external.isWeak {
            linked.absent[at] = "a call of \(name), which the running kernel does not have"
        } else {
            linked.stubs.insert(name)
        }
    }

    /// The kernel's number for a function. Nil: it has none, and the object or the engine can do without.
    private func function(_ external: Externals.External, _ prototype: UInt32, _ at: Int) throws(LoadError) -> UInt32? {
        do throws(Malformed) {
            guard let id = try object.kernel.function(external.name) else {
                if external.isWeak || KernelFunction(rawValue: external.name) != nil { return nil }
                throw Malformed("the running kernel has no function of this name")
            }
            let types = try object.kernel.types()
            guard let own = object.types, try CoreMatch(local: own, target: types).isCompatible(prototype, types.type(id).sizeOrType) else {
                throw Malformed("the object declares it with other arguments than the running kernel")
            }
            return id
        } catch {
            throw linked.error(.unsupported, at: at, "kernel function \(external.name): \(error.message)")
        }
    }

    /// A 64-bit load of something declared `extern`.
    mutating func loadExternal(_ name: String, _ at: Int) throws(LoadError) {
        guard let external = object.externals.byName[name] else {
            throw linked.error(.malformed, at: at, "refers to \(name), of which the object has no declaration with types: compile with -g")
        }
        if let obstacle = external.obstacle { throw linked.error(.unsupported, at: at, "setting \(name): \(obstacle)") }
        switch external.kind {
        case .setting(let offset):
            guard let map = object.maps.firstIndex(where: { $0.section == MapDefinitionReader.noSection }) else { return }
            put(PseudoSource.mapValue, UInt32(map), UInt32(offset), at)
        case .symbol:
            let address = object.kernel.address(name)
            if address == nil && !external.isWeak { throw linked.error(.unsupported, at: at, "the running kernel has no symbol \(name)") }
            put(0, UInt32(truncatingIfNeeded: address ?? 0), UInt32(truncatingIfNeeded: (address ?? 0) >> 32), at)
        case .function(let prototype):
            let id = try function(external, prototype, at)
            if id == nil && !external.isWeak { linked.stubs.insert(name) }
            put(id == nil ? 0 : PseudoSource.kernelObject, id ?? 0, 0, at)
            linked.kernelFunctions[at] = name
        case .typedVariable:
            let id: UInt32?
            do throws(Malformed) { id = try object.kernel.variable(name) } catch { throw linked.error(.malformed, at: at, error.message) }
            if id == nil && !external.isWeak { throw linked.error(.unsupported, at: at, "the running kernel has no variable \(name)") }
            put(id == nil ? 0 : PseudoSource.kernelObject, id ?? 0, 0, at)
            // The kernel's memory is not within reach of a program that does not run there.
            if id != nil { throw linked.error(.unsupported, at: at, "refers to the kernel's variable \(name): programs here have no access to the kernel's memory") }
        }
    }

    private mutating func put(_ source: UInt8, _ low: UInt32, _ high: UInt32, _ at: Int) {
        linked.instructions[at].source = source
        linked.instructions[at].immediate = Int32(bitPattern: low)
        linked.instructions[at + 1].immediate = Int32(bitPattern: high)
    }
}
