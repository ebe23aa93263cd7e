"""The integration laboratory: namespaces, a forwarder between them, and an oracle that shares no code with it.

From the bottom up: `scope` (cleanup that survives interruption), `process`, `owner` (whose is what, and what a dead
run left), `netns`, `hugepages`, `daemon`; `wire` and `checksum` (parsing and sums in plain Python), `capture`,
`pcap`, `elf` and `uprobe` (evidence); `traffic`; `bench` (two ends and a forwarder), `oracle` (its judge).
"""
