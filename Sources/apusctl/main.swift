import ArgumentParser
import Glibc

// Not `Apusctl.main()`: its exit status for a wrong command line is 64, and this program promises 2.
do {
    var command = try Apusctl.parseAsRoot()
    try command.run()
} catch let failure as Failure {
    complain("apusctl: \(failure.sentence)")
    exit(1)
} catch {
    let status = Apusctl.exitCode(for: error)
    let message = Apusctl.fullMessage(for: error)
    if status.isSuccess { print(message) } else { complain(message) }
    exit(status.isSuccess ? 0 : 2)
}
