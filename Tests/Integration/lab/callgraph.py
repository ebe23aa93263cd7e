"""Who can be called from a function of an executable: disassembled, closed under direct calls and jumps."""

import bisect
import dataclasses
import pathlib
import re
import subprocess

_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(\S+)\s*(.*)$")
# Behind a call of these stands the next function, or its padding.
_NO_RETURN = {"__rte_panic@plt", "abort@plt", "__stack_chk_fail@plt"}
_TARGET = re.compile(r"^([0-9a-f]+) <([^>]+)>")


@dataclasses.dataclass
class Reach:
    """`functions` are the executable's own, `imports` what it asks other libraries for, `indirect` the functions that
    call through a pointer."""
    functions: set[str]
    imports: set[str]
    indirect: set[str]


class CallGraph:
    """Nodes are address ranges: several local functions share a name, and the compiler leaves some without a symbol,
    which then stand behind another one's end."""

    def __init__(self, executable: pathlib.Path):
        symbols = _symbols(executable)
        calls, indirect, names = _instructions(executable)
        self._names = {start: name for start, _, name in symbols} | names
        # A symbol's range is one node, jump tables and all. What has no symbol begins where somebody goes.
        ends = {start + size for start, size, _ in symbols}
        starts = sorted(set(self._names) | ends)
        gaps = ends - set(self._names)
        self._starts = sorted(set(starts) | {target for _, target in calls
                                             if starts[bisect.bisect_right(starts, target) - 1] in gaps})
        self._calls: dict[int, set[int]] = {}
        for address, target in calls:
            self._calls.setdefault(self._containing(address), set()).add(self._containing(target))
        self._indirect = {self._containing(address) for address in indirect}

    def find(self, pattern: str) -> int:
        matches = [address for address, name in self._names.items() if re.search(pattern, name)]
        assert len(matches) == 1, f"{len(matches)} functions match {pattern}"
        return matches[0]

    def reach(self, root: int) -> Reach:
        seen: set[int] = set()
        waiting = [root]
        while waiting:
            function = waiting.pop()
            if function not in seen:
                seen.add(function)
                if not self._is_import(function):
                    waiting += self._calls.get(function, ())
        imports = {function for function in seen if self._is_import(function)}
        return Reach({self._name(f) for f in seen - imports}, {self._name(f).removesuffix("@plt") for f in imports},
                     {self._name(f) for f in (seen - imports) & self._indirect})

    def _name(self, function: int) -> str:
        return self._names.get(function, f"{function:x}")

    def _is_import(self, function: int) -> bool:
        return self._name(function).endswith("@plt")

    def _containing(self, address: int) -> int:
        return self._starts[bisect.bisect_right(self._starts, address) - 1]


def _symbols(executable: pathlib.Path) -> list[tuple[int, int, str]]:
    lines = _output("nm", "--defined-only", "-S", executable)
    return [(int(words[0], 16), int(words[1], 16), words[3]) for words in map(str.split, lines)
            if len(words) == 4 and words[2] in "tTwW"]


def _instructions(executable: pathlib.Path):
    """Direct calls and jumps out of line as (from, to), calls through pointers, and the names of the linkage table."""
    calls, indirect, names = [], [], {}
    previous = None
    for line in _output("objdump", "-d", "--no-show-raw-insn", executable):
        if line.endswith("@plt>:"):
            address, name = line.split(" ", 1)
            names[int(address, 16)] = name[1:-2]
        if not (found := _INSTRUCTION.match(line)):
            continue
        address, operation, operand = int(found[1], 16), found[2].removesuffix("q"), found[3]
        if previous is not None:
            calls.append((previous, address))
        # What falls through into the next node belongs to the caller as well.
        previous = None if operation in ("ret", "jmp", "ud2", "hlt") else address
        if operation == "call" or operation.startswith("j"):
            if target := _TARGET.match(operand):
                calls.append((address, int(target[1], 16)))
                if target[2] in _NO_RETURN:
                    previous = None
            elif operation == "call":
                indirect.append(address)
    return calls, indirect, names


def _output(*command) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
