import Glibc

/// How fast parts of Apus are on this machine, now.
switch CommandLine.arguments.dropFirst().first {
case "sums":
    Sums().run()
default:
    print("usage: apus-bench sums")
    exit(2)
}
