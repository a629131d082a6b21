"""Layouts of types as text: what differs between two, and which differences objects made before a patch survive.

The text is made by `debuginfo.py`. Its first line is "struct SIZE", with " align N" where the source says so and
" by reference" where the compiler says that arguments are passed so (a class that is not trivial), "union SIZE" or
"enum SIZE UNDERLYING TYPE". Each further line is a member "OFFSET DECLARATION" (of a bit-field "BYTE.BIT:WIDTH
DECLARATION"), a base "OFFSET base CLASS" or "virtual base CLASS", or an enumerator "NAME = VALUE". Typedefs are resolved;
structs stand by name, for their layout is compared on its own; " #DIGEST" is the layout of one without a name.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_RESERVE = re.compile(r"(?P<at>\d+) unsigned char hotreload_reserve\[(?P<size>\d+)\]$")
_PLACE = re.compile(r"(?P<byte>\d+)(?:\.(?P<bit>\d+):\d+)? (?!base )")
_HEADER = re.compile(r"struct (?P<size>\d+)(?: align (?P<align>\d+))?(?P<by> by reference)?$")
_NARROW = frozenset("char signed unsigned short int long float double bool _Bool const volatile".split())
_IN_REGISTERS = 16       # bytes: larger ones are passed in memory, whatever they hold (psABI §3.2.3, classification)


class Compatible(NamedTuple):
    """Why objects that were made before go on being right."""
    note: str


def compatible(name: str, old: str, new: str) -> Compatible | None:
    """Whether what was made with layout `old` is right under `new`; None if not."""
    before, after = old.split("\n"), new.split("\n")
    if before[0].startswith("enum "):
        added = [line for line in after if line not in before]
        if before[0] == after[0] and set(before) <= set(after):
            return Compatible(f"{name} has new enumerators: {_some(added)}; values made before keep their meaning")
        return None
    return _reserve_used(name, before, after)


def _reserve_used(name: str, before: list[str], after: list[str]) -> Compatible | None:
    """All that changed lies in what was reserved: the rest has its offsets, and new members lie inside."""
    was, now = _HEADER.match(before[0]), _HEADER.match(after[0])
    if was is None or now is None or was["size"] != now["size"] or was["by"] != now["by"] or int(was["size"]) <= _IN_REGISTERS \
            or int(now["align"] or 1) > int(was["align"] or 1):
        return None
    reserved = _free_ranges(before)
    kept = [line for line in before[1:] if not _RESERVE.match(line)]
    added = [line for line in after[1:] if line not in kept]
    if [line for line in after[1:] if line in kept] != kept:
        return None
    for line in added:
        place = _PLACE.match(line)
        if place is None or not any(start <= int(place["byte"]) < end for start, end in reserved):
            return None
        if int(place["byte"]) % 16 == int(was["size"]) % 16 == 0 and not _narrow(line[place.end():]):
            return None
    new = _some([line for line in added if not _RESERVE.match(line)]) or "nothing, it is divided anew"
    return Compatible(f"{name} takes from its reserve: {new}; in objects made before, that holds what the reserve held "
                      "(zeros, if the program cleared it)")


def _narrow(declaration: str) -> bool:
    """Whether an object of this type surely wants no more than 8 bytes of alignment, which is what a reserve has."""
    words = declaration.partition("[")[0].split()[:-1]
    if " vector[" in declaration:
        return False
    return "*" in declaration or words[:1] == ["enum"] or words != ["long", "double"] and _NARROW.issuperset(words)


def _free_ranges(lines: list[str]) -> list[tuple[int, int]]:
    """Reserves that end where the next member begins, or the struct ends. With a gap behind it a new member could lie
    partly in the gap, whose bytes nobody copies."""
    size = int(lines[0].split()[1])
    starts = sorted({int(place["byte"]) for line in lines[1:] if (place := _PLACE.match(line))} | {size})
    found = []
    for line in lines[1:]:
        reserve = _RESERVE.match(line)
        if reserve is not None:
            start, end = int(reserve["at"]), int(reserve["at"]) + int(reserve["size"])
            if min(s for s in starts if s > start) == end:
                found.append((start, end))
    return found


def explain(old: str | None, new: str | None, most: int = 3) -> str:
    """The first differences, for people: "was 8 bytes, is 12; had `4 int height`, has `8 int height`"."""
    if old is None or new is None:
        return "its members changed"
    before, after = old.split("\n"), new.split("\n")
    said = []
    if before[0] != after[0]:
        said.append(f"was {before[0]} bytes, is {after[0]} bytes" if before[0].count(" ") == after[0].count(" ") == 1
                    else f"was {before[0]}, is {after[0]}")
    gone = [_shown(line) for line in before[1:] if line not in after[1:]]
    come = [_shown(line) for line in after[1:] if line not in before[1:]]
    if gone:
        said.append(f"had {_some(gone, most)}")
    if come:
        said.append(f"{'has' if gone else 'new:'} {_some(come, most)}")
    return "; ".join(said) or "its members are in another order"


def _shown(line: str) -> str:
    """A line for people: `int width` at 4."""
    place, _, text = re.sub(r" #[0-9a-f]{16}$", "", line).partition(" ")
    if not _PLACE.match(line):
        return f"`{line}`"
    return f"`{text.strip()}` at {place}"


def _some(lines: list[str], most: int = 4) -> str:
    shown = [line if line.startswith("`") else _shown(line) for line in lines[:most]]
    return ", ".join(shown) + (f" and {len(lines) - most} more" if len(lines) > most else "")


# ---- virtual functions ----------------------------------------------------------------------------------------------


def virtual_conflict(old: str, new: str) -> str | None:
    """What old code would get wrong about the virtual functions of a class; None if each place in the table means what it
    did. An override added, or a function behind all others, is no conflict: the table's size tells the rest."""
    before, after = _slots(old), _slots(new)
    if before is None or after is None:
        return None if old == new else "their places are not known"
    places = {function: slot for slot, function in after.items()}
    for slot, function in before.items():
        if slot in after and after[slot] != function:
            return f"place {slot} of its table was {function}, is {after[slot]}"
        if places.get(function, slot) != slot:
            return f"{function} moved from place {slot} of its table to {places[function]}"
    return None


def _slots(text: str) -> Mapping[int, str] | None:
    found: dict[int, str] = {}
    for line in text.split("\n") if text else []:
        slot, _, function = line.partition(" ")
        if int(slot) < 0 or found.setdefault(int(slot), function) != function:
            return None
    return found
