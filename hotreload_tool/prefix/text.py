"""The top of a source file: the includes, and the directives and comments between them.

What is cut off there must mean the same when it is compiled on its own, and the rest when it follows it: so the cut is
never inside a conditional, a comment or a continued line, and before the first line of code and the first pragma.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_HARMLESS = frozenset(("", "define", "undef"))
_CONDITIONS = frozenset(("if", "ifdef", "ifndef"))
_WITHIN_CONDITIONS = frozenset(("elif", "elifdef", "elifndef", "else", "endif", "error", "warning"))
_DIRECTIVE = re.compile(r"\s*#\s*(\w*)")
_HEADER_NAME = re.compile(r"\s*#\s*include\s*(<[^>\n]*>|\"[^\"\n]*\")")
_TOKEN = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|//|/\*")
_CONTINUED = re.compile(r"\\[ \t\r]*$")
# What means another thing in a copy of the file, or in one that another includes.
_OF_THE_FILE = re.compile(rb"\b(__INCLUDE_LEVEL__|__TIMESTAMP__|__BASE_FILE__)\b|#\s*include\s+(__FILE__)\b")


class Unsuitable(Exception):
    """This unit is compiled plainly. The message says why."""


class Parts(NamedTuple):
    """A source file in two. `body` has an empty line for each of `top`: its lines keep their numbers."""
    top: bytes
    body: bytes


def split(source: bytes, name: str) -> Parts:
    """Cut the content of a file whose last component is `name`. Raises Unsuitable."""
    own = _OF_THE_FILE.search(source)
    if own:
        raise Unsuitable(f"it uses {(own[1] or own[2]).decode()}")
    if re.search(rb"#\s*include\s*[<\"]([^>\"\n]*/)?" + re.escape(name.encode(errors="surrogateescape")) + rb"[>\"]", source):
        raise Unsuitable("it includes itself")
    if source.startswith(b"\xef\xbb\xbf") or b"\0" in source:
        raise Unsuitable("it does not begin with plain text")
    lines = source.splitlines(keepends=True) if b"\r" not in source.replace(b"\r\n", b"") else []
    count = _top_lines([line.decode("latin-1") for line in lines])
    if not count:
        raise Unsuitable("no include is at its top")
    return Parts(b"".join(lines[:count]), b"\n" * count + b"".join(lines[count:]))


def _top_lines(lines: list[str]) -> int:
    """How many lines belong to the top: up to the last include of it, or the end of the conditional that is around that."""
    depth, end, has_include = 0, 0, False
    for after, text in _logical_lines(lines):
        if not text.strip():
            continue
        found = _DIRECTIVE.match(text)
        if not found:
            break
        word = found[1]
        if word in _CONDITIONS:
            depth += 1
        elif word == "endif" and depth:
            depth -= 1
        elif word == "include":
            has_include = True
        elif word not in _HARMLESS and not (word in _WITHIN_CONDITIONS and depth):
            break
        if has_include and depth == 0:
            end, has_include = after, False
    return end


def _logical_lines(lines: list[str]) -> Iterator[tuple[int, str]]:
    """(number of lines up to its end, text without comments) of each logical line. Ends where it is not sure."""
    at = 0
    while at < len(lines):
        text, at = "", at
        while True:
            physical, at = lines[at].rstrip("\r\n"), at + 1
            continued = _CONTINUED.search(physical)
            text += physical[:continued.start()] if continued else physical
            stripped = _without_comments(text)
            if not continued and stripped is not None:
                break
            if at == len(lines):
                return
            text += "" if continued else "\n"
        if "R\"" in stripped or "??" in stripped:      # raw strings and trigraphs may hide the end of a line or of a comment
            return
        yield at, stripped


def _without_comments(text: str) -> str | None:
    """None within a comment that goes on."""
    named = _HEADER_NAME.match(text)
    kept, at = (named[0], named.end()) if named else ("", 0)
    while found := _TOKEN.search(text, at):
        kept += text[at:found.start()]
        if found[0] == "//":
            return kept
        if found[0] == "/*":
            end = text.find("*/", found.end())
            if end < 0:
                return None
            kept, at = kept + " ", end + 2
        else:
            kept, at = kept + found[0], found.end()
    return kept + text[at:]
