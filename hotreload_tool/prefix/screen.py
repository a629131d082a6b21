"""Headers that leave something in force for the code behind them that a compiled prefix does not keep.

Seen with gcc 12: `#pragma pack` and `#pragma GCC target` that a header opens and does not close are lost; with clang 14:
`#pragma redefine_extname`. Each file is looked at alone, so a pair in two headers counts as two that are open; `_Pragma`
is not looked at, for it lies in macros. What is overlooked here shows when objects are compared.
"""
from __future__ import annotations

import re

_PRAGMA = re.compile(rb"^[ \t]*#[ \t]*pragma[ \t]+((?:GCC|clang)[ \t]+)?"
                     rb"(pack|push_options|pop_options|optimize|target|visibility|attribute|redefine_extname|"
                     rb"scalar_storage_order|STDC|section)\b[ \t]*(\(?[ \t]*\w*)", re.MULTILINE)
_TIME = re.compile(rb"\b__(?:TIME|DATE)__\b")
_CODE = ("optimize", "target")
_PAIRED = ("visibility", "attribute")
_ONCE = ("redefine_extname", "scalar_storage_order", "STDC", "section")


def left_open(path: str) -> str | None:
    """What the file at `path` may leave in force; None where it leaves all as it was. Raises OSError."""
    with open(path, "rb") as file:
        data = file.read()
    time = b"E__" in data and _TIME.search(data)
    if time:
        return time[0].decode()
    if b"ragma" not in data:
        return None
    depth: dict[str, int] = {}
    packed = False
    for found in _PRAGMA.finditer(data):
        word, argument = found[2].decode(), found[3].lstrip(b"( \t")
        if word in _ONCE or (word in _CODE and not depth.get("options") and found[1]):
            return f"#pragma {word}"
        if word == "pack" and argument not in (b"push", b"pop"):
            packed = packed if depth.get("pack") else bool(argument)
        elif word == "pack" or word in _PAIRED:
            depth[word] = depth.get(word, 0) + (1 if argument == b"push" else -1)
        elif word in ("push_options", "pop_options"):
            depth["options"] = depth.get("options", 0) + (1 if word.startswith("push") else -1)
    still = [word for word, count in depth.items() if count]
    return "#pragma pack" if packed else f"#pragma {still[0]}" if still else None
