import Control
import Dataplane

/// A configured bridge: the table and the sets that lcores point into. Outlives them.
@safe final class OpenBridge {
    let name: String
    private let table: AddressTable
    private let members: UnsafeMutableBufferPointer<Int>
    private var trunks: [UnsafeMutablePointer<UInt64>] = unsafe []
    private let portNames: [String]

    /// - Parameter ports: every port of the daemon, in order.
    init(_ section: BridgeConfiguration, ports: [String]) {
        name = section.name
        portNames = ports
        table = AddressTable(capacity: section.addressCountMax, portCount: ports.count, portLimit: section.portAddressCountMax,
                             ageingSeconds: section.ageingSeconds)
        let numbers = section.ports.compactMap { ports.firstIndex(of: $0) }
        unsafe members = .allocate(capacity: numbers.count)
        unsafe _ = members.initialize(from: numbers)
    }

    deinit {
        table.free()
        unsafe members.deallocate()
        for unsafe trunk in unsafe trunks { unsafe trunk.deallocate() }
    }

    func member(_ vlan: VLANConfiguration?) -> BridgeMember {
        let vlans: VLANMembership
        switch vlan {
        case nil: vlans = .unaware
        case .access(let id): vlans = .access(UInt16(id))
        case .trunk(let ids):
            let set = UnsafeMutablePointer<UInt64>.allocate(capacity: 64)
            unsafe set.initialize(repeating: 0, count: 64)
            for id in ids { unsafe set[id >> 6] |= 1 << UInt64(id & 63) }
            unsafe trunks.append(set)
            vlans = unsafe .trunk(set)
        }
        return unsafe BridgeMember(table: table, members: UnsafeBufferPointer(members), vlans: vlans)
    }

    /// From any thread.
    var view: View { View(name: name, table: table, portNames: portNames, members: unsafe Array(members)) }

    struct View: Sendable {
        let name: String
        let table: AddressTable
        let portNames: [String]
        let members: [Int]

        func document() -> BridgeDocument.Bridge {
            let addresses = table.entries().map { entry in
                let bytes = (0..<6).map { UInt8(truncatingIfNeeded: entry.address >> (8 * UInt64($0))) }
                let text = bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
                return BridgeDocument.Address(address: text, vlan: Int(entry.vlan), port: portNames[entry.port], age: Int(entry.ageSeconds))
            }
            return .init(ports: Dictionary(uniqueKeysWithValues: members.map { (portNames[$0], table.count(ofPort: $0)) }), addresses: addresses)
        }
    }
}
