"""One of the two programs that are compared: what its addresses mean, and what its memory holds once it is loaded.

The new image is a side without payloads. The patched process is a side with all of them: slots lead to the newest code,
updates have been written, and of two functions of one name only the newer one has the name.
"""
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from ..names import CALL_SUFFIX, LOCAL_SEPARATOR
from ..payload import NEW_SUFFIX
from . import sizeless, tables
from .linked import FUNC, NOTYPE, OBJECT, SHF_EXECINSTR, SHF_TLS, SHF_WRITE, TLS, Linked, Symbol, Unreadable
from .space import Space, stub_slot
from .updates import is_numbered

if TYPE_CHECKING:
    from .threadpointer import Offsets

RESERVE = "hr_tls_reserve"        # names.TLS_RESERVE: room in which new thread-locals live


class Pointer(NamedTuple):
    """What a word holds: an address of this side, or a symbol that another image may define, or both."""
    address: int | None
    name: str = ""
    kind: str = "address"          # | "tls": an offset from the thread pointer | "module"
    version: str = ""              # of the symbol, if it asks for one


class Place(NamedTuple):
    """An offset in something that has a symbol."""
    start: int
    offset: int
    symbol: Symbol


def bare(name: str) -> str:
    """A symbol's name without its version."""
    return name.partition("@")[0]


def distinct(known: Iterable[str]) -> frozenset[str]:
    """Without the plain name of what also has a unique one: other objects may have something of that plain name too."""
    listed = set(known)
    plain = {n.partition(LOCAL_SEPARATOR)[0].partition("#")[0] for n in listed if LOCAL_SEPARATOR in n}
    return frozenset(listed - plain)


class Side:
    def __init__(self, space: Space) -> None:
        self.space = space
        self.absolute = space.image.type == "ET_EXEC"
        self._names: dict[int, frozenset[str]] = {}        # what `names_at` found
        self._texts: dict[tuple[int, int], frozenset[int]] = {}
        self._thread_offsets: dict[tuple[int, int], Offsets] = {}

    # ---- functions ----------------------------------------------------------------------------------------------

    @cached_property
    def entries(self) -> dict[str, int]:
        """Every function with a stub -> the stub, the newest of that name."""
        found: dict[str, int] = {}
        for file in self.space.files:
            for slot, name in tables.slots(file).items():
                if self.space.file_at(slot, 8) is file:
                    for stub in self.space.stubs_of_slot.get(slot, []):
                        if name in {bare(s.name) for s in self.space.symbols_at(stub)}:
                            found[name] = stub
        return found

    @cached_property
    def stub_names(self) -> dict[int, frozenset[str]]:
        """Current stubs -> their names."""
        found: dict[int, set[str]] = {}
        for name, stub in self.entries.items():
            found.setdefault(stub, set()).add(name)
        for stub, known in found.items():      # an alias of a file-local function has no slot name of its own
            known |= {n for s in self.space.functions_at(stub) if (n := bare(s.name)) not in self.entries}
        return {stub: frozenset(known) for stub, known in found.items()}

    def body(self, name: str) -> int:
        return self.space.slot_holds(self.space.stubs[self.entries[name]])

    @cached_property
    def bodies(self) -> dict[int, str]:
        """Code behind current stubs -> a name of the function."""
        return {self.body(name): name for name in sorted(self.entries, reverse=True)}

    @cached_property
    def _functions(self) -> dict[int, tuple[list[int], list[Symbol]]]:
        """For each file (by place in `files`): symbols of code with a size, by address."""
        return {i: functions_of(file) for i, file in enumerate(self.space.files)}

    def function_at(self, address: int) -> Place | None:
        """The code with a symbol that holds `address`."""
        file = self.space.file_at(address)
        if file is None:
            return None
        starts, code = self._functions[self.space.files.index(file)]
        at = bisect_right(starts, address) - 1
        while at > 0 and starts[at - 1] == starts[at]:
            at -= 1
        if at < 0 or address >= code[at].value + code[at].size:
            return None
        return Place(code[at].value, address - code[at].value, code[at])

    def functions_at(self, address: int) -> list[Symbol]:
        """Symbols of functions that begin there, with their sizes; of code without a size, with the one that it could have."""
        known = self.space.functions_at(address)
        file = self.space.file_at(address)
        return known if file is None or any(s.size for s in known) else sizeless.functions(file).get(address, known)

    def follows(self, code: int) -> frozenset[str]:
        """The names of what code without a size may go on into behind its end."""
        file = self.space.file_at(code)
        own = sizeless.functions(file).get(code) if file is not None else None
        if file is None or own is None or not sizeless.falls_through(file, own[0]):
            return frozenset()
        starts, _ = functions_of(file)
        at = bisect_right(starts, code)
        return frozenset(bare(s.name) for s in self.functions_at(starts[at])) if at < len(starts) else frozenset()

    def plain_functions(self) -> dict[int, list[str]]:
        """Code of the image itself that has a symbol, no stub and is none: address -> names."""
        found: dict[int, list[str]] = {}
        for symbol in self._functions[0][1]:
            if symbol.value not in self.space.stubs and symbol.value not in self.bodies:
                found.setdefault(symbol.value, []).append(bare(symbol.name))
        return found

    @cached_property
    def payload_targets(self) -> list[int]:
        """What code and data of the payloads refer to, sorted, as far as slots and updates lead to these: what else a payload
        holds says nothing."""
        waiting = [a for p in self.space.payloads for a in (*(r.new for r in p.redirects), *map(p.pointer, p.own_slots))]
        waiting += [u.new_content for p in self.space.payloads for u in p.updates]
        sizes = {u.new_content: u.size for p in self.space.payloads for u in p.updates}
        found, met = set(waiting), set[int]()
        while waiting:
            start, referred = self._referred(waiting.pop(), sizes)
            if start not in met:
                met.add(start)
                waiting += [t for t in referred if t not in found and self.space.file_at(t) not in (None, self.space.image)]
                found |= referred
        return sorted(found)

    def _referred(self, address: int, sizes: Mapping[int, int]) -> tuple[int, set[int]]:
        """Where that begins which holds `address`, and what it refers to. Data without a symbol goes on as long as it holds
        addresses."""
        from .instructions import targets
        code = self.function_at(address)
        if code is not None:
            return code.start, set(targets(self.space.read(code.start, code.symbol.size), code.start))
        held = self.object_at(address)
        if address not in sizes and held is not None and held.offset < held.symbol.size:
            return held.start, self._held(held.start, held.symbol.size)
        if address in sizes:
            return address, self._held(address, sizes[address])
        found: set[int] = set()
        while self.space.file_at(address + 8 * len(found), 8) is not None and (word := self._held(address + 8 * len(found), 8)) \
                and not word <= found:
            found |= word
        return address, found

    def _held(self, address: int, size: int) -> set[int]:
        """Addresses in the words of a range."""
        words = range(address + -address % 8, address + size - 7, 8)
        found = {p.address for at in words if (p := self.pointer(at)) is not None and p.address is not None}
        if self.absolute:
            found |= set(filter(self.may_be_address, (self.space.word(at) for at in words)))
        return found

    @cached_property
    def image_targets(self) -> list[int]:
        """What code and data of the image refer to, sorted: seldom asked for, and a walk over all of it."""
        return sorted({*_targets(self.space.image), *self.held_addresses})

    @cached_property
    def held_addresses(self) -> set[int]:
        """What words of the image's data refer to, or can in an image whose addresses need no relocation."""
        file = self.space.image
        found = {r.addend for r in file.relocations if r.addend > 0} | {file.word(at) for at in file.relative_words}
        if self.absolute:
            kept = [s for s in file.sections if s.name.startswith((".rodata", ".data")) and not s.nobits]
            words = {file.word(at) for s in kept for at in range(s.address + -s.address % 8, s.end - 7, 8)}
            found |= set(filter(self.may_be_address, words))
        return found

    # ---- linkage ------------------------------------------------------------------------------------------------

    @cached_property
    def linkage(self) -> dict[int, str]:
        """Entries of the procedure linkage tables -> what they call."""
        return {at: name for file in self.space.files for at, name, _ in _linkage(file) if self.space.file_at(at) is file}

    @cached_property
    def linkage_versions(self) -> dict[int, str]:
        """The same entries -> the version that they ask for."""
        return {at: version for file in self.space.files for at, _, version in _linkage(file) if version}

    def is_got(self, address: int) -> bool:
        """Whether a word is one that a linker makes to hold an address."""
        file = self.space.file_at(address, 8)
        section = file.section_of(address) if file is not None else None
        return section is not None and section.name.startswith(".got")

    # ---- names --------------------------------------------------------------------------------------------------

    def names_at(self, address: int) -> frozenset[str]:
        """The names by which code may refer to exactly this address. A caller's word has none: what it holds is compared."""
        known = self._names.get(address)
        if known is None:
            known = self._names[address] = self._names_at(address)
        return known

    def _names_at(self, address: int) -> frozenset[str]:
        if address in self.linkage:
            return frozenset({self.linkage[address]})
        if address in self.space.stubs:
            return self.stub_names.get(address, frozenset())
        if led := self._led_to(address):
            return led
        known = distinct(bare(s.name) for s in self.space.symbols_at(address) if s.type in (OBJECT, NOTYPE)
                         and not s.name.endswith((NEW_SUFFIX, CALL_SUFFIX)))
        return frozenset(n for n in known if is_numbered(n) or address in self._places.get(n, (address,)))

    def _led_to(self, address: int) -> frozenset[str]:
        """The names of the function that the code at `address` does nothing but jump to by way of its slot: payloads call such
        stubs past the heads that lead to them."""
        file = self.space.file_at(address)
        slot = stub_slot(file, address) if file is not None and file.executable(address) else 0
        return frozenset().union(*(self.stub_names.get(stub, ()) for stub in self.space.stubs_of_slot.get(slot, ())))

    @cached_property
    def _places(self) -> dict[str, set[int]]:
        """Names of data -> where what bears them lies, in the newest file that has it."""
        found: dict[str, set[int]] = {}
        for file in self.space.files:
            ours: dict[str, set[int]] = {}
            for address, known in named_data(file):
                if self.space.file_at(address) is file:
                    for name in known:
                        ours.setdefault(name, set()).add(address)
            found.update(ours)
        return found

    @cached_property
    def repeated(self) -> set[str]:
        """Names that several objects bear."""
        return {name for name, where in self._places.items() if len(where) > 1}

    def object_at(self, address: int) -> Place | None:
        """The data that holds `address`, or that it stands right behind of."""
        found = self.space.object_at(address)
        if found is None:
            return None
        symbol, end = found
        return Place(symbol.value, address - symbol.value, symbol) if address <= max(symbol.value + symbol.size, end) else None

    @cached_property
    def data(self) -> dict[str, int]:
        """Every named object -> its address, the newest of that name."""
        return {name: max(where) for name, where in self._places.items()}

    def is_constant(self, address: int) -> bool:
        """Whether an object is one that the program never writes."""
        file = self.space.file_at(address)
        section = file.section_of(address) if file is not None else None
        return section is not None and (not section.flags & SHF_WRITE or section.name.startswith(".data.rel.ro"))

    def block_of(self, address: int, type: int) -> int:
        """A number for the source file of which the image's function or object at `address` is a local one; 0: not known."""
        image = self.space.image
        known = {image.blocks.get((s.name, address), 0) for s in image.by_address.get(address, []) if s.type == type}
        return max(known, default=0) if self.space.file_at(address) is image else 0

    def texts(self, code: int, size: int) -> frozenset[int]:
        """Instructions in so many bytes of code that load the address of a text which ends with its first zero."""
        from .texts import given
        known = self._texts.get((code, size))
        if known is None:
            known = self._texts[code, size] = given(self, self.space.read(code, size), code)
        return known

    # ---- content ------------------------------------------------------------------------------------------------

    @cached_property
    def _updates(self) -> list[tuple[int, int, int, Linked]]:
        """(address, size, where the new content lies, its file), newest last."""
        return [(u.address, u.size, u.new_content, p.file) for p in self.space.payloads for u in p.updates]

    def read(self, address: int, size: int) -> bytes:
        found = bytearray(self.space.read(address, size))
        for start, length, content, file in self._updates:
            low, high = max(start, address), min(start + length, address + size)
            if low < high:
                found[low - address:high - address] = file.read(content + low - start, high - low)
        return bytes(found)

    def _origin(self, address: int) -> tuple[Linked, int]:
        for start, length, content, file in reversed(self._updates):
            if start <= address and address + 8 <= start + length:
                return file, content + address - start
        file_ = self.space.file_at(address, 8)
        if file_ is None:
            raise Unreadable(f"nothing lies at {address:#x}")
        return file_, address

    def pointer(self, address: int) -> Pointer | None:
        """What a relocation puts into the 8 bytes at `address`; None if there is none."""
        file, at = self._origin(address)
        relocation = file.relocation_at.get(at)
        if at in self._module_words:
            return Pointer(None, kind="module")
        if relocation is None and at in file.relative_words:
            return Pointer(file.word(at))
        if relocation is None or relocation.type in (tables.R_NONE, tables.R_COPY):
            return None
        if relocation.type in (tables.R_RELATIVE, tables.R_IRELATIVE):
            return Pointer(relocation.addend)
        if relocation.type == tables.R_DTPMOD64:
            return Pointer(None, kind="module")
        wanted = file.dynamic_symbol(relocation.symbol) if relocation.symbol else None
        symbol = wanted.symbol if wanted else None
        if relocation.type == tables.R_TPOFF64:
            return Pointer((symbol.value if symbol else 0) + relocation.addend, symbol.name if symbol else "", "tls")
        if symbol is None or wanted is None:
            return None
        addend = relocation.addend if relocation.type == tables.R_64 else 0
        name = symbol.name + (f"+{addend}" if addend else "")
        return Pointer(symbol.value + addend if symbol.defined else None, name, version=wanted.version)

    @cached_property
    def _module_words(self) -> set[int]:
        """Words of payloads into which the agent writes what the loader does elsewhere."""
        return {at for p in self.space.payloads for at in p.module_words}

    @cached_property
    def _relocated(self) -> list[list[int]]:
        """For each file (by place in `files`): where the loader writes, sorted."""
        return [_relocated(file) for file in self.space.files]

    def relocated(self, address: int, size: int) -> set[int]:
        """Addresses in a range at which the loader may write a pointer."""
        found = {at for offsets in self._relocated for at in _between(offsets, address, address + size)}
        for start, length, content, file in self._updates:
            low, high = max(start, address), min(start + length, address + size)
            if low < high:
                offsets = self._relocated[self.space.files.index(file)]
                found |= {at - content + start for at in _between(offsets, content + low - start, content + high - start)}
        return {at for at in found if at + 8 <= address + size}

    def may_be_address(self, value: int) -> bool:
        """Whether a number can be the address of something that a program refers to."""
        file = self.space.file_at(value) if value >= 0x1000 else None
        section = file.section_of(value) if file is not None else None
        if section is None:                    # the end of a section has a name at times
            return file is not None and bool(self.names_at(value))
        return bool(section.flags & (SHF_WRITE | SHF_EXECINSTR)) or section.name.startswith(".rodata")

    # ---- thread-locals ------------------------------------------------------------------------------------------

    @cached_property
    def tls_size(self) -> int:
        """The size of the image's block, rounded as psABI §3.4.6 does it for the offset from the thread pointer."""
        segment = next((s for s in self.space.image.segments if s.type == "PT_TLS"), None)
        return 0 if segment is None else segment.size + -segment.size % max(segment.align, 1)

    @cached_property
    def _thread_locals(self) -> list[Symbol]:
        return sorted((s for s in self.space.image.symbols if s.type == TLS and s.defined), key=lambda s: s.value)

    @cached_property
    def thread_local_names(self) -> Counter[str]:
        """How many have a name: several may, each known to its file alone."""
        return Counter(bare(s.name) for s in self._thread_locals)

    def thread_offsets(self, code: int, size: int) -> Offsets:
        """Instructions in so many bytes of code whose number may be an offset from the thread pointer or in the block."""
        known = self._thread_offsets.get((code, size))
        if known is None:
            known = self._thread_offsets[code, size] = self._offsets(self.space.read(code, size), code)
        return known

    def _offsets(self, code: bytes, start: int) -> Offsets:
        from .instructions import block_calls
        from .threadpointer import offsets
        return offsets(code, start, block_calls(code, start, self) if self._has_blocks else frozenset())

    @cached_property
    def _has_blocks(self) -> bool:
        """Whether code may ask for the start of the block of thread-locals: programs are linked so that it need not."""
        return any(r.type == tables.R_DTPMOD64 for r in self.space.image.relocations)

    def is_module(self, address: int) -> bool:
        """Whether a word takes the number by which the loader knows a file's block of thread-locals."""
        if self.space.file_at(address, 8) is None:
            return False
        held = self.pointer(address)
        return held is not None and held.kind == "module"

    def thread_local(self, value: int) -> Place | None:
        """The thread-local that holds byte `value` of the block."""
        for symbol in self._thread_locals:
            if symbol.value <= value < symbol.value + max(symbol.size, 1):
                return Place(symbol.value, value - symbol.value, symbol._replace(name=bare(symbol.name)))
        return None


# ---- what a file says by itself -----------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def functions_of(file: Linked) -> tuple[list[int], list[Symbol]]:
    """Addresses of the symbols of code, in order, and the symbols."""
    sized = [s for symbols in file.by_address.values() for s in symbols if s.type == FUNC and s.size and file.executable(s.value)]
    code = sorted([*sized, *(s for found in sizeless.functions(file).values() for s in found)], key=lambda s: (s.value, -s.size))
    return [s.value for s in code], code


@lru_cache(maxsize=16)
def _targets(file: Linked) -> list[int]:
    """What the code of a file refers to, in order."""
    from .instructions import targets
    return sorted({t for s in functions_of(file)[1] for t in targets(file.read(s.value, s.size), s.value)})


@lru_cache(maxsize=16)
def _linkage(file: Linked) -> list[tuple[int, str, str]]:
    """Entries of the procedure linkage tables, what they call, and in which version."""
    found = []
    for section in file.sections:
        for at in range(section.address, section.end, 8) if section.name.startswith((".plt", ".iplt")) else ():
            relocation = file.relocation_at.get(stub_slot(file, at))
            if relocation is not None and relocation.symbol:
                wanted = file.dynamic_symbol(relocation.symbol)
                found.append((at, wanted.symbol.name, wanted.version))
            elif relocation is not None and relocation.type == tables.R_IRELATIVE:
                found.append((at, "".join(sorted(s.name for s in file.by_address.get(relocation.addend, []))), ""))
    return found


@lru_cache(maxsize=16)
def named_data(file: Linked) -> list[tuple[int, frozenset[str]]]:
    """Where data with a name and a size lies, and its names."""
    return [(address, known) for address, symbols in file.by_address.items()
            if (known := distinct(bare(s.name) for s in symbols if s.type == OBJECT and s.size
                                  and not s.name.endswith((NEW_SUFFIX, CALL_SUFFIX)) and not _is_tls(file, s)))]


@lru_cache(maxsize=16)
def _relocated(file: Linked) -> list[int]:
    """Where the loader writes, in order."""
    return sorted({r.offset for r in file.relocations} | file.relative_words)


def _between(offsets: list[int], start: int, end: int) -> list[int]:
    return offsets[bisect_left(offsets, start):bisect_left(offsets, end)]


def _is_tls(file: Linked, symbol: Symbol) -> bool:
    return symbol.section < len(file.sections) and bool(file.sections[symbol.section].flags & SHF_TLS)
