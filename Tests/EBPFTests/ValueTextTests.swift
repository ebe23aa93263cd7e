import Foundation
import Testing

@testable import EBPF

/// Keys and values by their types: as clang describes them, to JSON and back.
@Suite struct ValueTextTests {
    static let source = """
        enum mood { CALM = 1, ANGRY = -2 };
        struct inner { __be16 port; char name[6]; };
        struct shape {
            __s32 balance; __u64 large; __be32 address; _Bool on; enum mood mood;
            struct inner inner[2];
            union { __u32 word; __u8 bytes[4]; } either;
            struct { __u8 low; __u8 high; };
            __u32 three : 3, nine : 9; __s32 minus : 4;
            void *pointer;
        };
        struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u16); __type(value, struct shape); __uint(max_entries, 4); } shapes SEC(".maps");
        struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(key_size, 4); __uint(value_size, 3); __uint(max_entries, 4); } plain SEC(".maps");
        struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __type(key, __u32); __type(value, __u32); __uint(max_entries, 2); } own SEC(".maps");
        SEC("xdp") int program(struct xdp_md *ctx)
        {
            __u16 key = 1; __u32 index = 0;
            return (bpf_map_lookup_elem(&shapes, &key) ? 1 : 2) + !!bpf_map_lookup_elem(&plain, &index) + !!bpf_map_lookup_elem(&own, &index);
        }
        """

    private func load() throws -> LoadedProgram {
        try ProgramLoader.load(object: try Objects.source(ValueTextTests.source), program: nil, verify: .sandbox)
    }

    private func json(_ text: String) throws -> JSONValue { try JSONDecoder().decode(JSONValue.self, from: Data(text.utf8)) }

    static let shape = #"""
        {"balance":-5,"large":18446744073709551615,"address":167772161,"on":true,"mood":"ANGRY",
         "inner":[{"port":80,"name":"web"},{"port":443,"name":"secure"}],"either":{"word":1},"low":7,"high":8,
         "three":5,"nine":300,"minus":-3,"pointer":"0x0000000000000000"}
        """#

    @Test func fieldsAreWhatTheyAre() throws {
        let map = try #require(try load().map(named: "shapes"))
        try map.update(.init(key: .integer(258), value: try json(ValueTextTests.shape)))
        // Written out by hand from the C declaration.
        var bytes: [UInt8] = [0xfb, 0xff, 0xff, 0xff, 0, 0, 0, 0] + [UInt8](repeating: 0xff, count: 8)
        bytes += [10, 0, 0, 1, 1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]
        bytes += [0, 80, 0x77, 0x65, 0x62, 0, 0, 0, 1, 187] + Array("secure".utf8) + [1, 0, 0, 0, 7, 8]
        // Bitfields begin where there is room in their unit, right behind `high`.
        let packed = UInt16(5) | 300 << 3 | 13 << 12
        bytes += [UInt8(truncatingIfNeeded: packed), UInt8(packed >> 8)]
        bytes += [UInt8](repeating: 0, count: map.definition.valueSize - bytes.count)
        #expect(try map.lookup([2, 1]) == bytes)
        let shown = try #require(map.entries(limit: 9).first)
        #expect(shown.key == .integer(258))
        // A union is shown in each of its ways.
        var expected = try json(ValueTextTests.shape)
        if case .object(var fields) = expected {
            fields["either"] = .object(["word": .integer(1), "bytes": .array([.integer(1), .integer(0), .integer(0), .integer(0)])])
            expected = .object(fields)
        }
        #expect(shown.value == expected)
    }

    @Test func everyValueMayBeBytes() throws {
        let program = try load()
        let plain = try #require(program.map(named: "plain"))
        try plain.update(.init(key: .integer(1), value: .string("0x0a0b0c")))
        #expect(plain.entries(limit: 1) == [.init(key: .string("0x01000000"), value: .string("0x0a0b0c"))])
        let shapes = try #require(program.map(named: "shapes"))
        let hex = ValueText.hex([UInt8](repeating: 0, count: shapes.definition.valueSize)[...])
        try shapes.update(.init(key: .string("0x0100"), value: .string(hex)))
        #expect(try shapes.lookup(.integer(1)) != nil)
        let own = try #require(program.map(named: "own"))
        try own.update(.init(key: .integer(1), value: .integer(6)))
        #expect(try own.lookup(.integer(1)) == .array(Array(repeating: .integer(6), count: own.definition.controlValueSize / 8)))
    }

    @Test(arguments: [
        (#"{"key":1,"value":{"balance":0}}"#, "the value: large, address, on, mood, inner, either, low, high, three, nine, minus, pointer are missing"),
        (#"{"key":70000,"value":0}"#, "the key: 70000 does not fit into 16 unsigned bits"),
        (#"{"key":-1,"value":0}"#, "the key: -1 does not fit into 16 unsigned bits"),
        (#"{"key":1}"#, "the value is missing"), (#"{"key":1,"value":[]}"#, "the value: write an object of balance, large"),
        (#"{"key":"vm0","value":0}"#, "the key: 'vm0' is no number, and nothing here has that name"),
        (#"{"key":1,"value":"0x00"}"#, "the value: write an object of"),
    ]) func refusals(_ entry: String, _ message: String) throws {
        let map = try #require(try load().map(named: "shapes"))
        let decoded = try JSONDecoder().decode(BPFMap.Entry.self, from: Data(entry.utf8))
        let refused = #expect(throws: BPFMap.Refused.self) { try map.update(decoded) }
        #expect(refused?.message.hasPrefix(message) == true, "\(refused?.message ?? "")")
    }

    @Test(arguments: [("mood", #""GLAD""#, "mood: there is no 'GLAD', but ANGRY, CALM"), ("on", "3", "on: write true or false"),
                      ("inner", "[]", "inner: write an array of 2"), ("nine", "512", "nine: 512 does not fit into 9 unsigned bits"),
                      ("minus", "8", "minus: 8 does not fit into 4 bits"), ("either", #"{"word":1,"bytes":[0,0,0,0]}"#, "either: write one field of word, bytes"),
                      ("low", "256", "low: 256 does not fit into 8 unsigned bits")])
    func refusedFields(_ field: String, _ value: String, _ message: String) throws {
        let map = try #require(try load().map(named: "shapes"))
        guard case .object(var fields) = try json(ValueTextTests.shape) else { return }
        fields[field] = try json(value)
        let whole = JSONValue.object(fields)
        let refused = #expect(throws: BPFMap.Refused.self) { try map.update(.init(key: .integer(1), value: whole)) }
        #expect(refused?.message == "the value: \(message)")
    }

    /// In a process without the object the types are the same.
    @Test func layoutsCrossProcesses() throws {
        let loader = try LoaderProcess(executable: LoaderTests.executable)
        let path = try Objects.source(ValueTextTests.source)
        let there = try loader.load(object: path, program: nil, verify: .sandbox), here = try load()
        #expect(there.maps.map(\.definition.valueLayout) == here.maps.map(\.definition.valueLayout))
        #expect(there.map(named: "shapes")?.definition.valueLayout != nil)
    }
}
