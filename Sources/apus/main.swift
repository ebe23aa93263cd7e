import ArgumentParser
import Glibc

// A wrong command line is a wrong configuration to whoever starts services: status 2, not the parser's 64.
do {
    var command = try Apus.parse()
    try command.run()
} catch let status as ExitCode {
    exit(status.rawValue)
} catch {
    let status = Apus.exitCode(for: error)
    let message = Apus.fullMessage(for: error)
    if status.isSuccess { print(message) } else { complain(message) }
    exit(status.isSuccess ? 0 : 2)
}
