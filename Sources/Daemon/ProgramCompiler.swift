import Compiler
import EBPF
import Foundation
import Logging
import Synchronization

/// Compiles the configured programs in a thread of its own, off the polling CPUs; until one is done, and where it cannot
/// be, it is interpreted.
final class ProgramCompiler: Sendable {
    /// What the thread leaves behind; it may outlive this object.
    private final class Result: Sendable {
        let codes = Mutex<[CompiledCode]>([])
        let isOver = DispatchSemaphore(value: 0)
    }

    private let result = Result()

    /// Begins at once.
    init(_ programs: [(name: String, program: LoadedProgram)], logger: Logger) {
        let result = result
        let thread = Thread {
            ProgramCompiler.compile(programs, result, logger)
            result.isOver.signal()
        }
        thread.name = "compiler"
        // LLVM recurses over what it is given.
        thread.stackSize = 8 << 20
        thread.start()
    }

    private static func compile(_ programs: [(name: String, program: LoadedProgram)], _ result: Result, _ logger: Logger) {
        do throws(CompilerError) {
            let compiler = try Compiler()
            func compile(_ name: String, _ program: LoadedProgram, _ effort: Effort? = nil) throws(CompilerError) -> Effort {
                let begin = ContinuousClock.now
                let code = try compiler.compile(program, effort: effort)
                let time = (ContinuousClock.now - begin) / .milliseconds(1)
                let (how, then) = code.effort == .short ? (" shortly", "; it is large: thoroughly next") : (effort == nil ? "" : " thoroughly", "")
                logger.info("xdp \(name): compiled\(how) in \(Int(time)) ms, \(code.bytes) bytes\(then)")
                result.codes.withLock { $0.append(code) }
                return code.effort
            }
            var large: [(name: String, program: LoadedProgram)] = []
            for (name, program) in programs {
                do throws(CompilerError) {
                    if try compile(name, program) == .short { large.append((name, program)) }
                } catch {
                    logger.warning("xdp \(name): stays interpreted: \(error)")
                }
            }
            // Once every program has some code. The first code of these stays until the end: somebody may run it.
            for (name, program) in large {
                do throws(CompilerError) {
                    _ = try compile(name, program, .thorough)
                } catch {
                    logger.warning("xdp \(name): keeps what was compiled first: \(error)")
                }
            }
        } catch {
            logger.warning("no compiler, programs stay interpreted: \(error)")
        }
    }

    /// Waits for the thread; the code is gone behind it. No lcore may run.
    func stop() {
        result.isOver.wait()
        result.codes.withLock { codes in
            for code in codes { code.retire() }
            codes.removeAll()
        }
    }
}
