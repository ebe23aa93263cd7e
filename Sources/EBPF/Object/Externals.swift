/// What an object expects the kernel to provide: settings of its configuration (`.kconfig`), functions and symbols
/// (`.ksyms`). Settings live in a map of their own, laid out as libbpf does.
struct Externals {
    enum Kind: Equatable {
        /// Place in the map.
        case setting(offset: Int)
        /// Its prototype in the object's types.
        case function(prototype: UInt32)
        case typedVariable
        /// An address, nothing more.
        case symbol
    }

    struct External {
        let name: String
        let kind: Kind
        let isWeak: Bool
        /// Why a setting has no value, though it must have one.
        var obstacle: String?
    }

    /// How libbpf takes the type of a setting.
    private enum SettingType { case boolean, character(isSigned: Bool), integer(isSigned: Bool), tristate, text }

    private struct Setting {
        let name: String
        let isWeak: Bool
        let type: SettingType
        let size: Int
        let alignment: Int
    }

    private(set) var byName: [String: External] = [:]
    private var unset: [(name: String, text: String)] = []
    /// The settings' map; nil where there are none.
    private(set) var map: MapDefinition?

    init() {}

    init(_ file: ELFFile, _ types: BTF, _ kernel: TargetKernel) throws(Malformed) {
        var settings: [Setting] = []
        let sections = try Externals.sections(types)
        for symbol in file.symbols where symbol.isExternal {
            guard let (id, section) = sections[symbol.name] else { continue }    // the linker says so where it is used
            let record = try types.type(id)
            let isWeak = symbol.binding == ELFFile.Symbol.weak
            if section == ".kconfig" {
                settings.append(try Externals.setting(symbol.name, record, isWeak, types))
                continue
            }
            let kind: Kind = record.kind == .function ? .function(prototype: record.sizeOrType)
                : try types.strippedID(record.sizeOrType) == 0 ? .symbol : .typedVariable
            byName[symbol.name] = External(name: symbol.name, kind: kind, isWeak: isWeak)
        }
        if !settings.isEmpty { layOut(settings, kernel) }
    }

    /// Variables and functions of `.kconfig` and `.ksyms`, by name.
    private static func sections(_ types: BTF) throws(Malformed) -> [String: (UInt32, String)] {
        var found: [String: (UInt32, String)] = [:]
        for name in [".kconfig", ".ksyms"] {
            guard let section = try types.dataSection(named: name) else { continue }
            for member in section.members { found[try types.name(member.type)] = (member.type, name) }
        }
        return found
    }

    private static func setting(_ name: String, _ variable: BTF.TypeRecord, _ isWeak: Bool, _ types: BTF) throws(Malformed) -> Setting {
        guard variable.kind == .variable else { throw Malformed("\(name): there are no functions in .kconfig") }
        let type = try types.stripped(variable.sizeOrType)
        let size = Int(try types.size(variable.sizeOrType))
        let kind: SettingType
        switch type.kind {
        case .int where type.isBoolean && size == 1: kind = .boolean
        case .int where !type.isBoolean && size == 1: kind = .character(isSigned: type.isSignedInteger)
        case .int where !type.isBoolean && [2, 4, 8].contains(size): kind = .integer(isSigned: type.isSignedInteger)
        case .enumeration where size == 4 && type.name == "libbpf_tristate": kind = .tristate
        case .array where type.elementCount > 0:
            let element = try types.stripped(type.elementType)
            guard element.kind == .int, element.sizeOrType == 1, !element.isBoolean else { fallthrough }
            kind = .text
        default: throw Malformed("\(name): a setting is a number, a character, a bool, an enum libbpf_tristate or a char array")
        }
        return Setting(name: name, isWeak: isWeak, type: kind, size: size, alignment: type.kind == .array ? 1 : size)
    }

    /// The widest first, then the shortest, then by name.
    private mutating func layOut(_ settings: [Setting], _ kernel: TargetKernel) {
        let ordered = settings.sorted { ($1.alignment, $0.size, $0.name) < ($0.alignment, $1.size, $1.name) }
        var contents: [UInt8] = []
        for setting in ordered {
            let offset = (contents.count + setting.alignment - 1) / setting.alignment * setting.alignment
            contents += [UInt8](repeating: 0, count: offset - contents.count)
            var external = External(name: setting.name, kind: .setting(offset: offset), isWeak: setting.isWeak)
            var value = [UInt8](repeating: 0, count: setting.size)
            do throws(Malformed) {
                if let known = try Externals.value(setting, kernel) { value = known }
            } catch {
                external.obstacle = error.message
            }
            byName[setting.name] = external
            contents += value
            let zero = switch setting.type {
            case .boolean, .tristate: "n"
            case .text: "\"\""
            default: "0"
            }
            if setting.name.hasPrefix("CONFIG_") { unset.append((setting.name, zero)) }
        }
        map = MapDefinition(name: ".kconfig", type: MapDefinition.array, keySize: 4, valueSize: contents.count, maxEntries: 1,
                            flags: MapDefinition.readOnlyForPrograms, contents: contents)
    }

    /// What libbpf is to take for the configuration where there is none to read: that nothing is set.
    func settings(for kernel: TargetKernel) -> String {
        guard map != nil, kernel.configuration == nil else { return "" }
        return unset.map { "\($0.name)=\($0.text)\n" }.joined()
    }

    // MARK: Values

    /// Nil: not set, and need not be.
    private static func value(_ setting: Setting, _ kernel: TargetKernel) throws(Malformed) -> [UInt8]? {
        guard setting.name.hasPrefix("CONFIG_") else { return try virtual(setting, kernel).map { value throws(Malformed) in try number(setting, value) } }
        guard let configuration = kernel.configuration else {
            if setting.isWeak { return nil }
            throw Malformed("the running kernel's configuration cannot be read (\(kernel.configurationPlaces)), and the setting is not weak")
        }
        guard let text = configuration[setting.name], let first = text.utf8.first else {
            if setting.isWeak { return nil }
            throw Malformed("the running kernel's configuration does not set it, and it is not weak")
        }
        switch (first, setting.type) {
        case (UInt8(ascii: "y"), .boolean): return [1]
        case (UInt8(ascii: "n"), .boolean): return [0]
        case (UInt8(ascii: "y"), .tristate), (UInt8(ascii: "m"), .tristate), (UInt8(ascii: "n"), .tristate):
            return [first == UInt8(ascii: "y") ? 1 : first == UInt8(ascii: "m") ? 2 : 0, 0, 0, 0]
        case (UInt8(ascii: "y"), .character), (UInt8(ascii: "m"), .character), (UInt8(ascii: "n"), .character): return [first]
        case (UInt8(ascii: "\""), .text):
            guard text.utf8.count >= 2, text.hasSuffix("\"") else { break }
            let kept = Array(text.utf8.dropFirst().dropLast().prefix(setting.size - 1))
            return kept + [UInt8](repeating: 0, count: setting.size - kept.count)
        case (_, .integer), (_, .character):
            if let value = integer(text) { return try number(setting, value) }
        default: break
        }
        throw Malformed("the running kernel says '\(text)', which does not fit the variable's type")
    }

    /// What libbpf knows without a configuration.
    private static func virtual(_ setting: Setting, _ kernel: TargetKernel) throws(Malformed) -> UInt64? {
        switch setting.name {
        case "LINUX_KERNEL_VERSION": return UInt64(kernel.version)
        case "LINUX_HAS_BPF_COOKIE": return kernel.version >= 5 << 16 | 15 << 8 ? 1 : 0
        case "LINUX_HAS_SYSCALL_WRAPPER": return kernel.version >= 4 << 16 | 17 << 8 ? 1 : 0
        default:
            if setting.isWeak && setting.name.hasPrefix("LINUX_") { return 0 }
            throw Malformed("there is no setting of this name: they begin with CONFIG_, or are LINUX_KERNEL_VERSION, LINUX_HAS_BPF_COOKIE, LINUX_HAS_SYSCALL_WRAPPER")
        }
    }

    private static func integer(_ text: String) -> UInt64? {
        let isNegative = text.hasPrefix("-"), digits = isNegative ? text.dropFirst() : text[...]
        let value = digits.hasPrefix("0x") ? UInt64(digits.dropFirst(2), radix: 16) : UInt64(digits)
        return value.map { isNegative ? 0 &- $0 : $0 }
    }

    private static func number(_ setting: Setting, _ value: UInt64) throws(Malformed) -> [UInt8] {
        var isSigned = false
        switch setting.type {
        case .integer(let sign), .character(let sign): isSigned = sign
        case .boolean where value <= 1: break
        default: throw Malformed("the running kernel says \(value), which does not fit the variable's type")
        }
        let bits = UInt64(setting.size * 8)
        let fits = bits == 64 || (isSigned ? value &+ (1 << (bits - 1)) < 1 << bits : value >> bits == 0)
        guard fits else { throw Malformed("the running kernel says \(value), which does not fit into \(setting.size) bytes") }
        return (0..<setting.size).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
    }
}
