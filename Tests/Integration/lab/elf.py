"""Where a function stands in an ELF file: what a uprobe wants to know."""

import pathlib
import struct

_SYMTAB, _DYNSYM, _LOAD = 2, 11, 1


def file_offset(path: pathlib.Path, symbol: str) -> int:
    """Bytes from the start of the file to the code of `symbol` (64-bit little-endian ELF)."""
    image = path.read_bytes()
    if image[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{path} is no 64-bit little-endian ELF file")
    addresses = {value for name, value in _symbols(image) if name == symbol}
    if len(addresses) != 1:
        raise LookupError(f"{path} has {len(addresses)} functions named {symbol}")
    [address] = addresses
    for offset, start, size in _segments(image):
        if start <= address < start + size:
            return address - start + offset
    raise LookupError(f"{symbol} of {path} is in no segment")


def _segments(image: bytes):
    [table] = struct.unpack_from("<Q", image, 32)
    [size, count] = struct.unpack_from("<HH", image, 54)
    for index in range(count):
        kind, _, offset, address, _, file_size = struct.unpack_from("<IIQQQQ", image, table + index * size)
        if kind == _LOAD:
            yield offset, address, file_size


def _symbols(image: bytes):
    [table] = struct.unpack_from("<Q", image, 40)
    [size, count] = struct.unpack_from("<HH", image, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, table + index * size) for index in range(count)]
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind not in (_SYMTAB, _DYNSYM):
            continue
        names = sections[link][4]
        for name, _, _, section, value, _ in struct.iter_unpack("<IBBHQQ", image[offset:offset + length]):
            if section:
                end = image.index(b"\0", names + name)
                yield image[names + name:end].decode(errors="replace"), value
