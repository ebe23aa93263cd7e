internal import CBPF

/// Runs a program: by its compiled code once there is some, by the interpreter until then.
///
/// Trivial: it may be copied to any lcore and used by many at once, as long as its `LoadedProgram` lives.
@safe public struct Runner: @unchecked Sendable {       // what it points to changes by atomic stores only
    let image: UnsafePointer<ProgramImage>

    /// Runs the program once; see `Interpreter.run`. A function of its own: who calls through a pointer is to be seen in
    /// the call graph.
    @_noLocks @inline(never)
    public func run(_ context: inout XDPContext) -> Effect {
        let entry = unsafe apus_acquire64(image.pointee.compiled)
        guard entry != 0 else { return unsafe Interpreter(image: image).run(&context) }
        var effect = Effect()
        unsafe withUnsafeMutablePointer(to: &context) { context in
            unsafe withUnsafeMutablePointer(to: &effect) { _ = unsafe apus_run_burst(entry, context, $0, 1) }
        }
        return effect
    }

    /// Runs the program on each of `count` packets.
    @_noLocks @inline(never)
    public func run(_ contexts: UnsafeMutablePointer<XDPContext>, _ effects: UnsafeMutablePointer<Effect>, count: Int) {
        guard count > 0 else { return }
        let entry = unsafe apus_acquire64(image.pointee.compiled)
        if entry != 0 {
            _ = unsafe apus_run_burst(entry, contexts, effects, count)
            return
        }
        let interpreter = unsafe Interpreter(image: image)
        for index in 0..<count { unsafe effects[index] = interpreter.run(&contexts[index]) }
    }

    /// For tools and tests, which ask what a run returned.
    @_noLocks
    func runWhole(_ context: inout XDPContext) -> (Effect, r0: UInt64) {
        let entry = unsafe apus_acquire64(image.pointee.compiled)
        guard entry != 0 else {
            let effect = unsafe Interpreter(image: image).run(&context)
            return (effect, unsafe apus_scratch_registers(apus_scratch())[0])
        }
        var effect = Effect()
        let r0 = unsafe withUnsafeMutablePointer(to: &context) { context in
            unsafe withUnsafeMutablePointer(to: &effect) { unsafe apus_run_burst(entry, context, $0, 1) }
        }
        return (effect, r0)
    }
}

extension LoadedProgram {
    /// Valid as long as this program lives: that is what the caller vouches for.
    @unsafe public var runner: Runner { unsafe Runner(image: UnsafePointer(body.image)) }

    /// What there is to compile.
    package var compilation: CompilationUnit {
        unsafe CompilationUnit(linked, body.instructions, analysis, maps: allMaps, image: UInt64(UInt(bitPattern: body.image)), isSandboxed: isSandboxed, isRaw: isRaw)
    }

    /// From now on runs and tail calls go to compiled code, which lives until `interpret()` and until every lcore has been
    /// out of it since. `entry` runs a burst; `body` is what tail calls jump to.
    package func adopt(entry: UInt64, body code: UInt64) {
        unsafe apus_release64(body.image.pointee.compiled + 1, code)
        unsafe apus_release64(body.image.pointee.compiled, entry)
    }

    /// Back to the interpreter.
    package func interpret() { adopt(entry: 0, body: 0) }

    public var isCompiled: Bool { unsafe apus_acquire64(body.image.pointee.compiled) != 0 }
}

extension LoadedProgram {
    /// Other programs that its object's program arrays start with.
    package var companions: [LoadedProgram] { self.set.companions() }

    /// Its object has a program array, which may come to hold it. Of any other program only bursts are compiled: where
    /// another object's array holds it, tail calls interpret it.
    package var mayBeTailCalled: Bool { self.set.hasProgramArray }
}
