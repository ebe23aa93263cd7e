import CDPDK

/// Memory that a vhost-user peer shares and then takes back while it is mapped here, by cutting its file short. Reading it
/// then ends a process; here such pages become zeros, so that one peer's end is not everybody's.
public enum LostMemory {
    /// From now on, in the whole process.
    public static func survive() throws(DPDKError) {
        let status = apus_survive_lost_memory()
        guard status == 0 else { throw DPDKError("bus errors cannot be handled", status) }
    }

    /// Pages so far, and an address in the last of them.
    public static var found: (pages: UInt64, address: UInt64) {
        var address: UInt64 = 0
        let pages = unsafe apus_lost_pages(&address)
        return (pages, address)
    }
}
