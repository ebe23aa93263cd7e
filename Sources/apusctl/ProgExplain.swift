import ArgumentParser
import EBPF
import Foundation

struct ProgExplain: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain", abstract: "Say what a program does to packets and their checksums, with source lines.",
        discussion: "The program is neither loaded nor run. Line numbers need an object compiled with -g.")

    @Argument(help: "The BPF object.")
    var object: String

    @Option(help: "Only this program (default: all of the object).")
    var program: String?

    @Flag(help: "Print one JSON document.")
    var json = false

    func run() throws {
        let explanations: [Explanation]
        do {
            explanations = try Explanation.of(object: object, program: program)
        } catch {
            throw Failure("\(error)")
        }
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            print(String(decoding: try encoder.encode(["programs": explanations]), as: UTF8.self))
        } else {
            print(explanations.map(ProgExplain.text).joined(separator: "\n\n"))
        }
    }

    private static func text(_ explanation: Explanation) -> String {
        let head = "\(explanation.program): \(explanation.instructions) instructions, \(explanation.provedInBounds) of \(explanation.accesses) accesses proved in bounds"
        return ([head] + explanation.sentences.map { "  \($0)" }).joined(separator: "\n")
    }
}
