import Glibc

/// How fast parts of Apus are on this machine, now.
switch CommandLine.arguments.dropFirst().first {
case "sums":
    Sums().run()
case "loop":
    Loop().run()
default:
    print("usage: apus-bench sums | loop")
    exit(2)
}
