"""What a payload does to the functions of its image: slots, old code, new code, stubs of new functions, references."""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from .. import arch, names
from ..payload import NEW_SUFFIX
from . import heads
from .linked import FUNC, PF_X, Linked, Symbol
from .space import Space, stub_slot
from .tables import R_RELATIVE, Payload, Redirect
from .transience import is_marked

_FRAGMENT = re.compile(r"^(?P<base>.+?)\.(?:constprop|isra|part|cold|lto_priv|llvm|specialized)(?:\.\d+|\.\w*)*$")
_TARGET = re.compile(r"(?P<rip>\[rip (?P<sign>[+-]) (?P<distance>0x[0-9a-f]+|\d+)\])")
_SHORT = 2            # bytes of a jump with an 8-bit displacement
_BRANCH = re.compile(r"^(?:call|jmp|j\w+|loop\w*|jrcxz|jecxz|xbegin)$")


# ---- slots ------------------------------------------------------------------------------------------------------


def slot_problems(payload: Payload, space: Space) -> Iterator[str]:
    """`space`: the image and the generations before this one."""
    seen: dict[int, int] = {}
    for number, redirect in enumerate(payload.redirects):
        name = space.slots.get(redirect.slot)
        if name is None:
            yield f"redirect {number} starts at {redirect.slot:#x}, where neither the image nor an earlier generation has a slot"
            continue
        if redirect.slot not in space.stubs_of_slot:
            yield f"redirect {number} starts at the slot of {name}, through which no stub jumps"
        if redirect.slot % 8 or not space.is_variable(redirect.slot, 8):
            yield f"redirect {number} starts at the slot of {name}, which does not lie in data that can be written"
        if redirect.slot in seen:
            yield f"redirects {seen[redirect.slot]} and {number} both start at the slot of {name}"
        seen[redirect.slot] = number
    yield from _head_problems(payload, space)


def _head_problems(payload: Payload, space: Space) -> Iterator[str]:
    """A redirect has no effect where the head of its function stays idle; and no other code may be changed."""
    listed = {(h.redirect, h.at) for h in payload.heads}
    wanted = {(i, head) for i, r in enumerate(payload.redirects) if (head := space.head_of(r.slot))}
    for number, at in sorted(wanted - listed):
        yield f"{slot_name(space, payload.redirects[number])}: its head at {at:#x} is not listed, and calls would not be met"
    for number, at in sorted(listed - wanted):
        yield f"the head at {at:#x} is not that of redirect {number}"


def slot_name(space: Space, redirect: Redirect) -> str:
    return space.slots.get(redirect.slot, f"{redirect.slot:#x}")


# ---- old code ---------------------------------------------------------------------------------------------------


def old_code_problems(payload: Payload, space: Space) -> Iterator[str]:
    for redirect in payload.redirects:
        name = slot_name(space, redirect)
        holds = space.slot_holds(redirect.slot) if redirect.slot in space.slots else None
        if holds is not None and holds != redirect.old:
            yield f"{name}: its slot holds {holds:#x}, the redirect expects {redirect.old:#x}"
        if not space.is_code(redirect.old, redirect.old_size):
            yield f"{name}: {redirect.old_size} bytes at {redirect.old:#x} are no code of the image or an earlier generation"
            continue
        sizes = {s.size for s in space.functions_at(redirect.old)} - {0}
        if sizes and redirect.old_size not in sizes:
            yield f"{name}: its old code has {max(sizes)} bytes, the redirect says {redirect.old_size}"


def part_problems(payload: Payload, space: Space) -> Iterator[str]:
    listed: dict[int, set[tuple[int, int]]] = {}
    for number, part in enumerate(payload.parts):
        if not part.size or not space.is_code(part.start, part.size):
            yield f"part {number}, {part.size} bytes at {part.start:#x}, is no code of the image or an earlier generation"
        listed.setdefault(part.redirect, set()).add((part.start, part.size))
    for number, redirect in enumerate(payload.redirects):
        for fragment in _fragments(space, redirect):
            if (fragment.value, fragment.size) not in listed.get(number, ()):
                yield f"{slot_name(space, redirect)}: its part {fragment.name} at {fragment.value:#x} is not listed"


def _fragments(space: Space, redirect: Redirect) -> list[Symbol]:
    """Cold halves and clones that are called after the function whose old code a redirect replaces."""
    file = space.file_at(redirect.old)
    base = slot_name(space, redirect).partition(names.LOCAL_SEPARATOR)[0].partition("#")[0]
    return _fragments_by_base(file).get(base, []) if file is not None else []


@lru_cache(maxsize=16)
def _fragments_by_base(file: Linked) -> dict[str, list[Symbol]]:
    found: dict[str, list[Symbol]] = {}
    for symbol in file.symbols:
        match = _FRAGMENT.match(symbol.name) if symbol.type == FUNC and symbol.defined and symbol.size else None
        if match:
            found.setdefault(match["base"].removesuffix(names.BODY_SUFFIX), []).append(symbol)
    return found


# ---- new code ---------------------------------------------------------------------------------------------------


def new_code_problems(payload: Payload, slots: Mapping[int, str] | None) -> Iterator[str]:
    """`slots` None: the image is not at hand, so that the function a slot belongs to is not known."""
    for number, redirect in enumerate(payload.redirects):
        found = [s for s in payload.file.by_address.get(redirect.new, []) if s.type == FUNC]
        where = f"redirect {number} leads to {redirect.new:#x}"
        load = payload.file.load_of(redirect.new, max(redirect.new_size, 1))
        if load is None or not load.flags & PF_X:
            yield f"{where}, which is no code of the payload"
        elif not found:
            yield f"{where}, where no function of the payload begins"
        elif redirect.new_size not in {s.size for s in found}:
            yield f"{where}, a function of {found[0].size} bytes, and says {redirect.new_size}"
        elif slots is not None and redirect.slot in slots:
            name = slots[redirect.slot]
            if name + NEW_SUFFIX not in {s.name for s in found}:
                yield f"{where}, {found[0].name}, from the slot of {name}"


def new_function_problems(payload: Payload, space: Space) -> Iterator[str]:
    """Stubs of the payload: each jumps through a slot that the payload brings, which holds code of the payload."""
    own = Space(payload.file)
    for slot, name in payload.own_slots.items():
        code = own.word(slot)
        if not payload.file.executable(code) or not own.functions_at(code):
            yield f"{name}: its slot {slot:#x} holds {code:#x}, where no function of the payload begins"
        stubs = [s for s in own.stubs_of_slot.get(slot, []) if name in {x.name for x in own.symbols_at(s)}]
        if not stubs:
            yield f"{name}: no stub of that name jumps through its slot {slot:#x}"
        if any(heads.place(payload.file, s) and payload.file.read(heads.place(payload.file, s), heads.SIZE) == heads.IDLE
               for s in stubs):
            yield f"{name}: its head is no jump, and later patches would not be met"
        if slot in space.slots:
            yield f"{name}: its slot {slot:#x} lies over another one"
        if not _holds_body_of(own, name, code):
            yield f"{name}: its slot leads to {', '.join(s.name for s in own.functions_at(code)) or hex(code)}"


def _holds_body_of(own: Space, name: str, code: int) -> bool:
    plain = name.partition(names.LOCAL_SEPARATOR)[0].partition("#")[0]
    wanted = {name + names.BODY_SUFFIX, plain, name}
    called = {s.name for s in own.functions_at(code)}
    return bool(called & wanted) or any(c.removesuffix(names.BODY_SUFFIX) == name for c in called)


# ---- references -------------------------------------------------------------------------------------------------


def reference_problems(payload: Payload, space: Space) -> Iterator[str]:
    """Every displacement of the payload's code that leads out of it, or to code that has a stub."""
    file = payload.file
    yield from _pointers_to_passing(payload, space)
    behind_stubs = {space.slot_holds(slot) for slot in space.slots} | {r.new for r in payload.redirects} \
        | {loaded for slot in payload.own_slots if (loaded := Space(file).word(slot))}
    for symbol in file.symbols:
        if symbol.type != FUNC or not symbol.defined or not symbol.size or not file.executable(symbol.value, symbol.size):
            continue
        for at, size, target, branch in _targets(file.read(symbol.value, symbol.size), symbol.value):
            if symbol.value <= target < symbol.value + symbol.size:
                continue
            if size == _SHORT and file.executable(target):
                continue              # a jump within one section, which no relocation could lead to a stub (docs/formats.md)
            why = _why_wrong(target, branch, file, space, behind_stubs)
            if why:
                yield f"{symbol.name}: the instruction at {at:#x} leads to {target:#x}, {why}"


def _pointers_to_passing(payload: Payload, space: Space) -> Iterator[str]:
    """Words, other than those that the agent alone reads, that hold an address in a generation which may be unmapped."""
    own = payload.pointer_words
    for r in payload.file.relocations:
        if r.type == R_RELATIVE and r.offset not in own and _passing(r.addend, space):
            yield f"the word at {r.offset:#x} leads to {r.addend:#x}, in an earlier generation that may be unmapped"


def _passing(address: int, space: Space) -> bool:
    """Whether what lies there may be gone one day. Its addresses may be those of a later generation by now."""
    homes = [p for p in space.payloads if p.start <= address < p.end]
    return bool(homes) and is_marked(homes[-1])


@lru_cache(maxsize=1 << 10)
def _targets(code: bytes, address: int) -> list[tuple[int, int, int, bool]]:
    """(instruction, its size, address it refers to, whether it goes there) for direct branches and operands relative to the
    instruction."""
    found = []
    for at, size, mnemonic, operands in arch.NATIVE.disassembly(code, address):
        if "rip" in operands:
            match = _TARGET.search(operands)
            if match:
                distance = int(match["distance"], 0)
                found.append((at, size, at + size + (distance if match["sign"] == "+" else -distance), False))
        elif operands.startswith("0x") and _BRANCH.match(mnemonic.rpartition(" ")[2]):
            found.append((at, size, int(operands, 16), True))
    return found


def _why_wrong(target: int, branch: bool, file: Linked, space: Space, behind_stubs: set[int]) -> str:
    if branch and target in behind_stubs:
        return "past the stub of that function: later patches would not be met"
    if file.load_of(target) is not None:
        return "" if not branch or file.executable(target) else "which is no code"
    if not branch:
        if _passing(target, space):
            return "in an earlier generation that may be unmapped"
        known = space.file_at(target) or any(s.address <= target <= s.end for f in space.files for s in f.loads)
        return "" if known else "where neither image nor payload is"
    if not space.is_code(target):
        return "which is no code"
    owner = space.file_at(target)
    section = owner.section_of(target) if owner is not None else None
    if space.functions_at(target) or section is not None and section.name.startswith(".plt"):
        return ""
    if owner is not None and stub_slot(owner, target) in space.stubs_of_slot:       # past a head, to the stub that it leads to
        return ""
    return "where no function of the image begins"
