/// When a program's packets get their checksums finished (checksum contract, section 5).
public enum ChecksumMode: String, CaseIterable, Sendable {
    /// Only where nothing cheaper is right.
    case lazy
    /// Before the program runs, always: what a switch without the contract would do.
    case eager
    /// After any write, over the whole packet.
    case full
}
