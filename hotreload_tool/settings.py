"""The construction variables of the tool: one table of names, defaults, checks and help texts.

A value comes from the command line (`scons HOTRELOAD_PAD=128`), else from the environment, else from the keywords of
`env.Tool('hotreload', HOTRELOAD_PAD=128)`, else from this table.
"""
from __future__ import annotations

import fnmatch
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

PAGE = 4096                  # x86-64 psABI 3.3: the smallest page size
MAX_ARENA = 1 << 30          # a 32-bit displacement must reach across image and arena
MAX_PAD = 1 << 20
STUBS = ("plt", "entry")     # how functions are reached: docs/stubs.md
MOMENTS = ("quiescent", "now", "safepoint")      # when a patch goes in: docs/consistency.md
PREFIXES = ("auto", "always", "never")       # whether includes are compiled once while watching: docs/watch.md
INITIALISERS = ("merge", "keep", "reset")    # what living variables do with a changed initialiser (HOTPATCH_INIT)
_SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off", "")


class SettingError(ValueError):
    """A variable has a value the tool cannot use; the message names it and says what is accepted."""


class Setting(NamedTuple):
    """One construction variable. `read` turns what users write into what the tool uses, or raises ValueError."""
    name: str
    default: Any
    read: Callable[[Any], Any]
    help: str


class Settings(NamedTuple):
    """The checked values for one environment: the entries of `SETTINGS`, in their order."""
    enabled: bool
    stubs: str
    pad: int                   # bytes after each object
    arena: int                 # bytes reserved in each image for new code and data
    exclude: tuple[str, ...]   # shell patterns, matched against paths of sources relative to the top directory
    directory: str             # as SCons spells it: "#dir" or absolute
    trusted_keys: tuple[str, ...]   # files of public keys, relative to the top directory or absolute

    def excludes(self, path: str) -> bool:
        """Whether the source at `path` (relative to the top directory, with slashes) stays uninstrumented."""
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in self.exclude)


def truth(value: Any) -> bool:
    """The words SCons users write for yes and no."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word not in _YES + _NO:
            raise ValueError(f"{value!r} is neither yes nor no; write 1 or 0")
        return word in _YES
    return bool(value)


def _stubs(value: Any) -> str:
    if value not in STUBS:
        raise ValueError(f"{value!r} is not a kind of stub; there are {' and '.join(map(repr, STUBS))}")
    return str(value)


def _bytes(value: Any) -> int:
    text = str(value).strip().upper()
    factor = _SUFFIXES.get(text[-1:], 1)
    digits = text[:-1] if factor > 1 else text
    if not digits.isdigit():
        raise ValueError(f"{value!r} is not a number of bytes; write 4096, '64K' or '64M'")
    return int(digits) * factor


def _pad(value: Any) -> int:
    size = _bytes(value)
    if size > MAX_PAD:
        raise ValueError(f"{size} bytes after every object are too many; the most is {MAX_PAD}")
    return size


def _arena(value: Any) -> int:
    size = _bytes(value)
    if not PAGE <= size <= MAX_ARENA:
        raise ValueError(f"an arena of {size} bytes is out of range; it takes {PAGE} to {MAX_ARENA}")
    return -(-size // PAGE) * PAGE


def _patterns(value: Any) -> tuple[str, ...]:
    words = value.split() if isinstance(value, str) else list(value or ())
    return tuple(str(word) for word in words)


def _directory(value: Any) -> str:
    """Anchored at the top directory, whatever SConscript it is read in."""
    path = str(value).rstrip("/")
    if not path.startswith(("#", "/")):
        path = "#" + path
    if os.path.normpath(path.lstrip("#") or ".") in (".", "..", "/") or "/../" in f"{path}/":
        raise ValueError(f"{value!r} cannot be used: `scons -c` clears this directory; name a directory of its own")
    return path


SETTINGS = (
    Setting("HOTRELOAD_ENABLED", True, truth,
            "0 leaves this environment or target as it is without the tool"),
    Setting("HOTRELOAD_STUBS", "plt", _stubs,
            "how functions are reached: 'plt' jumps through a slot and never changes code, 'entry' calls them directly"),
    Setting("HOTRELOAD_PAD", 32, _pad,
            "least bytes after each variable and constant for it to grow into"),
    Setting("HOTRELOAD_ARENA", 64 << 20, _arena,
            "bytes of address space each image reserves for new code and data ('64M'); unused, it costs no memory"),
    Setting("HOTRELOAD_EXCLUDE", (), _patterns,
            "patterns of sources left uninstrumented, relative to the top directory ('third_party/*')"),
    Setting("HOTRELOAD_DIR", "#.hotreload", _directory,
            "where baselines, bundles and the runtime's objects live; `scons -c` removes it"),
    Setting("HOTRELOAD_TRUSTED_KEYS", (), _patterns,
            "public keys (FILE.pub of `hotpatch keygen`): images take only bundles that one of them signed; needs libsodium"),
)


def collect(chosen: Mapping[str, Any], command_line: Mapping[str, Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The raw value of every setting, by the order of precedence the module's head gives."""
    known = {s.name for s in SETTINGS}
    unknown = sorted(k for k in [*keywords, *command_line] if k.startswith("HOTRELOAD_") and k not in known)
    if unknown:
        raise SettingError(f"hotreload: there is no variable {unknown[0]}; there are {', '.join(sorted(known))}")
    return {s.name: command_line.get(s.name, chosen.get(s.name, keywords.get(s.name, s.default))) for s in SETTINGS}


def check(values: Mapping[str, Any]) -> Settings:
    """Raw values, checked. Raises SettingError."""
    raw = [values[setting.name] for setting in SETTINGS]
    return _check(tuple(tuple(value) if isinstance(value, list) else value for value in raw))


@functools.cache     # asked several times for each object, nearly always with the same values
def _check(raw: tuple[Any, ...]) -> Settings:
    checked = []
    for setting, value in zip(SETTINGS, raw, strict=True):
        try:
            checked.append(setting.read(value))
        except (TypeError, ValueError) as e:
            raise SettingError(f"hotreload: {setting.name}: {e}") from None
    return Settings(*checked)


def help_text() -> str:
    """For `scons -h`."""
    lines = ["", "hotreload: `scons hotpatch` puts your edits into the running program; HOTPATCH_APPLY=0 only builds",
             "the bundle, HOTPATCH_INIT=merge|keep|reset says what living variables do with changed initialisers,",
             "HOTPATCH_WHEN=quiescent|now|safepoint says when it goes in, HOTPATCH_TIMEOUT=S how many seconds it may take (10),",
             "HOTPATCH_GUARD=S for how many seconds a crash in the new code takes it back,",
             "HOTRELOAD=0 builds without the tool.",
             "Variables, for environments and the command line:"]
    for setting in SETTINGS:
        lines.append(f"  {setting.name:18} {setting.help} (default: {_shown(setting.default)})")
    lines.append("  HOTRELOAD_CCFLAGS  flags for each compile; without -g, any edited header is refused (default: by compiler)")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    return str(int(value) if isinstance(value, bool) else value)
