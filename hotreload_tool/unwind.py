"""`.eh_frame` of one relocatable object, function by function, and unwind descriptions for stubs.

Format: LSB Core 5.0 §10.6 ("Exception Frames"), DWARF 5 §6.4, pointer encodings LSB §10.5. ELF64 little-endian.
Names no CPU: register numbers come in as parameters.
"""
from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

_U32 = struct.Struct("<I")
_EXTENDED = 0xFFFFFFFF                    # a 64-bit length follows; the id stays 4 bytes wide (LSB §10.6.1)
_VERSIONS = (1, 3)                        # 3 differs in the return column: LEB128 instead of a byte

DW_EH_PE_OMIT = 0xFF
_PCREL, _INDIRECT = 0x10, 0x80
_FORMATS = {0x00: "<Q", 0x02: "<H", 0x03: "<I", 0x04: "<Q", 0x0A: "<h", 0x0B: "<i", 0x0C: "<q"}   # LSB table 10-4
_PCREL_SDATA4 = 0x1B

_DW_CFA_DEF_CFA, _DW_CFA_OFFSET = 0x0C, 0x80      # DWARF 5 table 7.29


class UnwindError(ValueError):
    """The bytes are not an `.eh_frame` we understand. `offset` is a byte in the section."""

    def __init__(self, offset: int, why: str) -> None:
        self.offset = offset
        self.why = why
        super().__init__(f".eh_frame, byte {offset:#x}: {why}")


class Reloc(NamedTuple):
    """A relocation as `parse` takes it (any 4-tuple will do) and hands it back."""
    offset: int
    type: int
    symbol_index: int
    addend: int


class Cie(NamedTuple):
    """What the FDEs of one common information entry share."""
    offset: int                       # of the entry in the section
    size: int                         # with its length field
    augmentation: str                 # "zR", "zPLR", "zRS", …
    code_align: int
    data_align: int
    return_register: int
    fde_encoding: int                 # DW_EH_PE_* of pc_begin and pc_range
    lsda_encoding: int                # DW_EH_PE_OMIT where FDEs have no LSDA pointer
    personality_encoding: int         # DW_EH_PE_OMIT where there is none
    personality_offset: int | None    # of the pointer field in the section
    personality: Reloc | None         # the relocation of that field
    cfi: bytes                        # initial instructions, without the padding of zeros (DW_CFA_nop)


class Fde(NamedTuple):
    """Unwind rules of one range of code."""
    offset: int                       # of the entry in the section
    size: int                         # with its length field
    pc_begin_offset: int              # of the pointer field in the section
    pc_begin: Reloc | None            # the relocation of that field: what the range starts at
    pc_range: int                     # bytes of code
    lsda_offset: int | None           # of the LSDA pointer field in the section, None if the function has none
    lsda: Reloc | None                # the relocation of that field
    cfi: bytes                        # instructions, without the padding of zeros (DW_CFA_nop)
    cie: Cie

    @property
    def cie_offset(self) -> int:
        return self.cie.offset

    @property
    def rules(self) -> tuple[str, int, int, int, int, bytes, bytes]:
        """All that unwinding reads and that holds no address: equal for equal code, wherever the entry lies."""
        cie = self.cie
        return (cie.augmentation, cie.code_align, cie.data_align, cie.return_register, cie.lsda_encoding, cie.cfi, self.cfi)


def parse(data: bytes, relocs: Sequence[tuple[int, int, int, int]] = ()) -> list[Fde]:
    """The FDEs of an `.eh_frame` section, in their order.

    `relocs` are the section's relocations as (offset, type, symbol index, addend). Raises UnwindError for bytes that
    are damaged or use an encoding that no ELF64 compiler emits.
    """
    by_offset = {r[0]: Reloc(*r) for r in relocs if r[1]}      # type 0 is "none" on every CPU
    cies: dict[int, Cie] = {}
    fdes: list[Fde] = []
    at = 0
    while at < len(data):
        cursor = _entry(data, at)
        if cursor is None:
            _only_zeros_after(data, at)
            break
        id_offset = cursor.at
        distance = cursor.u32("the CIE pointer")
        if distance == 0:
            cies[at] = _cie(cursor, at, by_offset)
        else:
            cie = cies.get(id_offset - distance)
            if cie is None:
                raise UnwindError(id_offset, f"no CIE lies {distance} bytes before this field")
            fdes.append(_fde(cursor, at, cie, by_offset))
        at = cursor.end
    _all_claimed(by_offset, cies, fdes)
    return fdes


def stub_cfi(sizes: Sequence[int], *, return_column: int, stack_pointer: int, cfa_offset: int,
             code_align: int = 1, data_align: int = -8) -> tuple[bytes, list[tuple[int, int]]]:
    """One CIE and an FDE for each stub of `sizes` bytes, to append to an `.eh_frame`.

    The rule is that of a function's first instruction: CFA = `stack_pointer` + `cfa_offset`, return address just below
    the CFA. Returns the bytes (each entry a multiple of 8) and, for each stub, (offset in these bytes, index of the
    stub): where a 32-bit PC-relative relocation to the stub's first byte must be put, with addend 0.
    Raises ValueError for numbers the encoding does not hold.
    """
    if not 0 <= return_column < 64 or cfa_offset % data_align:
        raise ValueError(f"return column {return_column} or CFA offset {cfa_offset} cannot be encoded")
    rules = (bytes([_DW_CFA_DEF_CFA]) + _uleb(stack_pointer) + _uleb(cfa_offset)
             + bytes([_DW_CFA_OFFSET | return_column]) + _uleb(-cfa_offset // data_align))
    body = (b"\1zR\0" + _uleb(code_align) + _sleb(data_align) + bytes([return_column])
            + _uleb(1) + bytes([_PCREL_SDATA4]) + rules)
    out = bytearray(_sealed(_U32.pack(0) + body))
    places = []
    for stub, size in enumerate(sizes):
        distance = len(out) + _U32.size
        places.append((len(out) + 2 * _U32.size, stub))
        out += _sealed(struct.pack("<IiI", distance, 0, size) + _uleb(0))
    return bytes(out), places


class _Cursor:
    """Reads inside one entry; running over its end is an UnwindError."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def take(self, count: int, what: str) -> int:
        """Steps over `count` bytes; their offset."""
        at = self.at
        if count > self.end - at:
            raise UnwindError(at, f"{what} runs over the end of its entry")
        self.at = at + count
        return at

    def u8(self, what: str) -> int:
        return self.data[self.take(1, what)]

    def u32(self, what: str) -> int:
        return int(_U32.unpack_from(self.data, self.take(4, what))[0])

    def uleb(self, what: str) -> int:
        return self._leb(what)[0]

    def sleb(self, what: str) -> int:
        value, bits = self._leb(what)
        return value - (1 << bits) if value >> (bits - 1) else value

    def _leb(self, what: str) -> tuple[int, int]:
        value = bits = 0
        while True:
            byte = self.u8(what)
            value |= (byte & 0x7F) << bits
            bits += 7
            if byte < 0x80:
                return value, bits
            if bits > 63:
                raise UnwindError(self.at, f"{what} has more than 64 bits")

    def string(self, what: str) -> str:
        end = self.data.find(b"\0", self.at, self.end)
        if end < 0:
            raise UnwindError(self.at, f"{what} has no end")
        text = self.data[self.at:end]
        self.at = end + 1
        return text.decode("latin-1")

    def pointer(self, encoding: int, what: str, absolute: bool = False) -> tuple[int, int]:
        """An encoded pointer: (offset of its field, its raw value); `absolute` for sizes, where only the format counts."""
        form = _FORMATS.get(encoding & 0x0F)
        if form is None or (not absolute and encoding & 0x70 not in (0, _PCREL)):
            raise UnwindError(self.at, f"{what} has the unsupported pointer encoding {encoding:#x}")
        at = self.take(struct.calcsize(form), what)
        value: int = struct.unpack_from(form.upper() if absolute else form, self.data, at)[0]
        return at, value

    def rest(self) -> bytes:
        return self.data[self.at:self.end].rstrip(b"\0")


def _entry(data: bytes, at: int) -> _Cursor | None:
    """The contents of the entry at `at`, None for the terminator."""
    header = _Cursor(data, at, len(data))
    length = header.u32("a length")
    if length == 0:
        return None
    if length == _EXTENDED:
        length = header.u32("an extended length") | header.u32("an extended length") << 32
    if length > len(data) - header.at:
        raise UnwindError(at, f"an entry of {length} bytes runs over the end of the section")
    return _Cursor(data, header.at, header.at + length)


def _all_claimed(relocs: dict[int, Reloc], cies: dict[int, Cie], fdes: list[Fde]) -> None:
    """Every relocation must lie on a field we hand out, else `rules` would be equal for unequal code."""
    known = {f.pc_begin_offset for f in fdes} | {f.lsda_offset for f in fdes} | {c.personality_offset for c in cies.values()}
    stray = relocs.keys() - known
    if stray:
        raise UnwindError(min(stray), "a relocation lies where no address is expected")


def _only_zeros_after(data: bytes, at: int) -> None:
    if data[at:].strip(b"\0"):
        raise UnwindError(at, "entries follow the terminator; unwinders would not see them")


def _cie(cursor: _Cursor, offset: int, relocs: dict[int, Reloc]) -> Cie:
    version = cursor.u8("the CIE version")
    if version not in _VERSIONS:
        raise UnwindError(cursor.at - 1, f"CIE version {version}; known are {_VERSIONS}")
    augmentation = cursor.string("the augmentation")
    code_align = cursor.uleb("the code alignment")
    data_align = cursor.sleb("the data alignment")
    column = cursor.u8("the return column") if version == 1 else cursor.uleb("the return column")
    encodings = {"R": 0, "L": DW_EH_PE_OMIT, "P": DW_EH_PE_OMIT}
    personality = _augmentation(cursor, augmentation, encodings) if augmentation else None
    return Cie(offset=offset, size=cursor.end - offset, augmentation=augmentation, code_align=code_align,
               data_align=data_align, return_register=column, fde_encoding=encodings["R"], lsda_encoding=encodings["L"],
               personality_encoding=encodings["P"], personality_offset=personality,
               personality=None if personality is None else relocs.get(personality), cfi=cursor.rest())


def _augmentation(cursor: _Cursor, letters: str, encodings: dict[str, int]) -> int | None:
    """Reads a CIE's augmentation data into `encodings`; the offset of the personality field, if any."""
    if letters[0] != "z":
        raise UnwindError(cursor.at, f"unsupported augmentation {letters!r}")
    length = cursor.uleb("the augmentation length")
    end = cursor.take(length, "the augmentation data") + length
    data = _Cursor(cursor.data, end - length, end)
    personality = None
    for letter in letters[1:]:
        if letter in encodings:
            encodings[letter] = data.u8("a pointer encoding")
            if letter == "P":
                personality, _ = data.pointer(encodings["P"], "the personality")
        elif letter not in "SB":          # S: signal frame; B: a pointer-authentication key; neither has data
            raise UnwindError(data.at, f"unknown letter {letter!r} in the augmentation {letters!r}")
    if data.at != end:
        raise UnwindError(data.at, f"the augmentation {letters!r} does not fill its data")
    return personality


def _fde(cursor: _Cursor, offset: int, cie: Cie, relocs: dict[int, Reloc]) -> Fde:
    pc_begin, _ = cursor.pointer(cie.fde_encoding, "the start address")
    range_offset, pc_range = cursor.pointer(cie.fde_encoding, "the range", absolute=True)
    if range_offset in relocs:
        raise UnwindError(range_offset, "the range has a relocation, so the size of the function is unknown")
    lsda = _lsda(cursor, cie, relocs) if cie.augmentation else None
    return Fde(offset=offset, size=cursor.end - offset, pc_begin_offset=pc_begin, pc_begin=relocs.get(pc_begin),
               pc_range=pc_range, lsda_offset=lsda, lsda=None if lsda is None else relocs.get(lsda), cfi=cursor.rest(), cie=cie)


def _lsda(cursor: _Cursor, cie: Cie, relocs: dict[int, Reloc]) -> int | None:
    """Steps over an FDE's augmentation data; the offset of its LSDA field, None if it holds none (a plain zero)."""
    length = cursor.uleb("the augmentation length")
    end = cursor.take(length, "the augmentation data") + length
    if cie.lsda_encoding == DW_EH_PE_OMIT:
        return None
    at, value = _Cursor(cursor.data, end - length, end).pointer(cie.lsda_encoding, "the LSDA pointer")
    return at if value or at in relocs else None


def _sealed(entry: bytes) -> bytes:
    """The entry behind its length, padded with DW_CFA_nop to a multiple of 8."""
    size = len(entry) + _U32.size
    size += -size % 8
    return _U32.pack(size - _U32.size) + entry.ljust(size - _U32.size, b"\0")


def _uleb(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _sleb(value: int) -> bytes:
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value & 0x7F])
