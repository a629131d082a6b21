"""What a verification came to: one outcome for each check and each thing it looked at.

The names of the checks are stable: scripts, JUnit files and suppressions in forges refer to them.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["passed", "failed", "unchecked"]

# name -> what holds if it passed
CHECKS: dict[str, str] = {
    # the file
    "archive": "the archive holds a manifest, one payload and one list of maps for each image, in bounds, and nothing else",
    "manifest-schema": "the manifest is what its schema describes",
    "payload-hash": "the payload has the size and the SHA-256 that the manifest states",
    "maps-hash": "the object maps have the SHA-256 that the manifest states, and can be read",
    "generation-id": "the generation's id is the hash of its build-id, its place in the chain and its object maps",
    "generation-chain": "the generation follows the one before it, back to the image as built",
    # who made it
    "signature": "the manifest and every payload are signed by a key that is trusted",
    # the payload by itself
    "payload-elf": "the payload is a 64-bit ELF image of the kind and for the machine of the image it patches",
    "payload-header": "the payload's own header says what the manifest says",
    "canonical-form": "each byte of the payload belongs to a header or a section, headers, sections and symbols agree, and "
                      "nothing is said twice",
    "segments-layout": "segments are page-aligned, lie in the file, and share no page",
    "segments-protection": "every segment is readable, and none is writable and executable",
    "executable-stack": "the payload asks for a stack that is not executable",
    "text-relocations": "nothing is relocated in code or constants",
    "relocation-places": "every relocation lies inside the payload's own writable segments",
    "relocation-kinds": "relocations are of kinds the agent knows, and lead into the image, the payload or an import",
    "no-start-code": "no code runs and no thread-local block appears when the payload is loaded",
    "no-exports": "the payload defines nothing that other images could bind to",
    "tables": "the payload's tables lie inside it, aligned, in pages that are read-only once it is relocated",
    "redirect-new-code": "every redirect leads to the entry of the function of the payload that its slot belongs to",
    "new-functions": "every new function has a stub that jumps through a slot of its own, which holds its code",
    "unwind-tables": "the unwind table is sound, ends, and covers all code that the image's own table would",
    "transient": "of a payload that may be unmapped nothing but return addresses can be kept, and nothing has to last",
    "manifest-agrees": "what the manifest lists is exactly what the payload's tables do",
    # the payload beside its image
    "build-id": "image, manifest and payload name one build-id",
    "segments-in-arena": "the payload lies inside the image's arena, and over no earlier generation but such as may be unmapped",
    "redirect-slots": "every redirect starts at a slot that a stub of the image jumps through, no slot has two, and the "
                      "function's head is listed where it has one",
    "redirect-old-code": "every redirect names the code that its slot holds, all of it",
    "old-code-parts": "the rest of each old function (its cold half, its clones) is listed, and is code",
    "references": "code of the payload reaches the image only through stubs, entries of functions, and its data",
    "data-updates": "data updates stay inside the padded extent of the object they are named after, and replace what it held",
    "imports": "every import is defined, in the version asked for, by the image's libraries",
    # against a fresh link of the new source
    "completeness-missing": "every function and constant of the new image is in the patched process",
    "completeness-different": "each of them has equal content there, by a digest computed from the machine code",
    "completeness-extra": "the bundles bring no live code or constant that the new image does not have",
    # with a running program
    "live-verdict": "the command's verdict is the same with the patch applied, reverted and applied again under it",
    "live-read-back": "after each step the process's memory holds what the bundle says",
}


@dataclass
class Outcome:
    """One check of one thing. `unchecked` is never taken for `passed`."""
    check: str
    subject: str                     # what was looked at: a member, "image BUILD-ID", a command
    status: Status
    problems: list[str] = field(default_factory=list)     # sentences, of a failure
    notes: list[str] = field(default_factory=list)        # what was found and is no failure
    why: str = ""                    # why it was not checked

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {"check": self.check, "subject": self.subject, "status": self.status, "says": CHECKS[self.check]}
        found.update({k: v for k, v in (("problems", self.problems), ("notes", self.notes), ("why", self.why)) if v})
        return found


@dataclass
class Verdict:
    """All outcomes of one bundle, in the order they were found."""
    bundle: str
    outcomes: list[Outcome] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)      # figures for `--json`

    def found(self, check: str, subject: str, problems: Iterable[str], notes: Iterable[str] = ()) -> bool:
        """Record what a check found; returns whether it passed."""
        listed = list(problems)
        self.outcomes.append(Outcome(_known(check), subject, "failed" if listed else "passed", listed, list(notes)))
        return not listed

    def cannot(self, check: str, subject: str, why: str) -> None:
        """Record that something could not be checked, and why."""
        self.outcomes.append(Outcome(_known(check), subject, "unchecked", why=why))

    def of(self, status: Status) -> list[Outcome]:
        return [o for o in self.outcomes if o.status == status]

    @property
    def sound(self) -> bool:
        return not self.of("failed")

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed, each once."""
        return list(dict.fromkeys(o.check for o in self.of("failed")))

    def document(self) -> dict[str, Any]:
        return {"bundle": self.bundle, "sound": self.sound, "failed": self.failed,
                "unchecked": list(dict.fromkeys(o.check for o in self.of("unchecked"))),
                "outcomes": [o.document() for o in self.outcomes], **self.details}


def _known(check: str) -> str:
    if check not in CHECKS:
        raise KeyError(f"no check is called {check}")
    return check
