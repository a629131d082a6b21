"""What an edit is."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Replacement:
    """Replace `old`, which occurs exactly once in `file`, by `new`."""
    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Check:
    """A request to the driver script and its whole answer before and after the edit.

    `{pid}` in an answer stands for the process id. An `interrupt` check is answered after the test has sent SIGINT; the
    interpreter restores the signal's default then, so that it can be asked once in a process. A `live` check only makes
    sense in a process that took the earlier edits while it ran.
    """
    ask: str
    old: str
    new: str
    interrupt: bool = False
    live: bool = False


@dataclass(frozen=True)
class Edit:
    """One edit. `counter`, where it brings a counting variable, is a request whose answer is the number of calls since,
    itself included; `counted` is the text of such a call, by which calls in other requests are found.
    """
    name: str
    what: str                               # which kind of edit it is, for people
    replacements: tuple[Replacement, ...]
    checks: tuple[Check, ...]
    functions: tuple[str, ...] = ()         # functions that must be among those reported as changed
    counter: str = ""
    counted: str = ""
    on_stack: bool = False                  # it changes a function that the waiting interpreter is in
    retires: str = ""                       # name of the edit whose counter ends with this one

    @property
    def files(self) -> list[str]:
        return sorted({r.file for r in self.replacements})
