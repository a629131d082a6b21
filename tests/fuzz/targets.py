"""What is fuzzed: for each reader its good input, its mutations, and what it may answer.

`run` returns a word for the answer; it lets through whatever the reader raises beyond what it promises, and raises
Wrong if it took what it must not take. Seeds are built with the compiler at hand.
"""
from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import mutations
from bundles import Made, case_of, make
from casetools import Configuration

from hotreload_tool import archive, baseline, bundle, elf, instrument, names, objectmap, signature, unwind, verify
from hotreload_tool.errors import Damaged, Refused
from hotreload_tool.verify import container, linked, tables
from hotreload_tool.verify.verdict import Verdict

FIRST = """
#include "case.h"
#include <math.h>
const int limits[6] = {1, 2, 3};
static int weights[4] = {1, 1};
static int calls;
__attribute__((cold, noinline)) void give_up(void) { puts("never"); abort(); }
NOINLINE int first(int n) { calls++; if (n > 1000) { give_up(); puts("x"); } return n + 1; }
NOINLINE int second(int n) { return n * limits[n & 3] + weights[n & 3]; }
void answer(const char *line) { printf("%d %d %d\\n", first((int)strlen(line)), second(2), calls); }
"""
SECOND = FIRST.replace("n + 1", "third(n) + 20").replace("{1, 2, 3}", "{1, 2, 4}").replace("{1, 1}", "{1, 5}").replace(
    "NOINLINE int first", "static int times = 3;\nNOINLINE int third(int n) { return times++ + n; }\nNOINLINE int first")
CXX = """
#include <string>
#include <vector>
namespace shop { template <class T> struct Box { std::vector<T> all; virtual ~Box() {} virtual T sum() const; T n; };
template <class T> T Box<T>::sum() const { static T calls; T s = ++calls; for (const T &x : all) s += x; return s; } }
template struct shop::Box<int>;
thread_local int per_thread = 3;
inline int shared = 4;
int use(const std::string &s) { try { return (int)s.at(3) + shared; } catch (...) { return per_thread; } }
"""
KEY = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""


class Wrong(AssertionError):
    """A reader took what it must refuse."""


@dataclass
class Target:
    name: str
    seeds: Sequence[bytes]
    mutate: Callable[[Random, bytes], bytes]
    run: Callable[[bytes], str]
    files: Sequence[str]             # of hotreload_tool, whose lines are counted


class Seeds:
    """The good input, made once in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def objects(self) -> list[bytes]:
        found = []
        for name, text, compiler, flags in (("c.c", FIRST, "gcc", "-O2 -g -ffunction-sections -fdata-sections"),
                                            ("x.cc", CXX, "g++", "-O1 -g -std=c++17"), ("p.cc", CXX, "g++", "-O2 -std=c++17")):
            source, made = self.folder / name, self.folder / f"{name}.o"
            source.write_text(text.replace('#include "case.h"', "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
                                           "#define NOINLINE __attribute__((noinline))"))
            subprocess.run([compiler, *flags.split(), "-c", source, "-o", made], check=True, timeout=120)
            found.append(made.read_bytes())
        return found

    def bundles(self) -> Made:
        case = case_of(self.folder / "case", FIRST, SECOND)
        return make(case, Configuration.parse("gcc -O2 pie"), self.folder / "build", self.folder)

    def archive(self) -> list[bytes]:
        for name in ("a_member.txt", "another_member_with_a_long_name.txt"):
            (self.folder / name).write_text(f"{name}\n" * 5)
        found = []
        for options in ("rc", "rcT"):
            made = self.folder / f"lib{options}.a"
            subprocess.run(["ar", options, made.name, "a_member.txt", "another_member_with_a_long_name.txt"], check=True,
                           cwd=self.folder, timeout=60)
            found.append(made.read_bytes())
        return found


def of(name: str, folder: Path) -> Target:
    """The target with its seeds, built in `folder`. Raises KeyError, CalledProcessError."""
    return _MAKERS[name](Seeds(folder))


# ---- objects and images ------------------------------------------------------------------------------------------


def _elf(seeds: Seeds) -> Target:
    def run(data: bytes) -> str:
        try:
            read = elf.parse(data)
            list(read.groups())
            for section in read.sections:
                read.relocations(section)
        except elf.ElfError:
            return "refused"
        return "taken"
    return Target("elf", seeds.objects(), mutations.some_bytes, run, ["elf.py"])


def _object(seeds: Seeds) -> Target:
    def run(data: bytes) -> str:
        try:
            out, described = instrument.instrument(data, "a.o")
        except Refused:
            return "refused"
        if next(objectmap.unpack_all(described.pack())) != described or elf.parse(out).where == "":
            raise Wrong("the map that was written is not the one that was made")
        return "taken"
    return Target("object", seeds.objects(), mutations.some_bytes, run,
                  ["survey.py", "debuginfo.py", "dwarf.py", "unwind.py", "instrument.py"])


def _unwind(seeds: Seeds) -> Target:
    tables = [s.data for data in seeds.objects() for s in elf.parse(data).sections if s.name == ".eh_frame"]

    def run(data: bytes) -> str:
        try:
            unwind.parse(data)
        except unwind.UnwindError:
            return "refused"
        return "taken"
    return Target("unwind", tables, mutations.some_bytes, run, ["unwind.py"])


def _image(seeds: Seeds) -> Target:
    path = seeds.folder / "mutant"

    def run(data: bytes) -> str:
        path.write_bytes(data)
        try:
            baseline.read_image(path)
        except (Damaged, Refused):
            return "refused"
        return "taken"
    return Target("image", [seeds.bundles().image.read_bytes()], mutations.some_bytes, run, ["elf.py", "baseline.py"])


def _objectmap(seeds: Seeds) -> Target:
    packed = [instrument.instrument(data, "a.o")[1].pack() for data in seeds.objects()]

    def run(data: bytes) -> str:
        try:
            maps = list(objectmap.unpack_all(data))
        except objectmap.MapError:
            return "refused"
        for described in maps:
            described.pack()
        return "taken"
    return Target("objectmap", packed, mutations.object_map, run, ["objectmap.py"])


def _archive(seeds: Seeds) -> Target:
    path = seeds.folder / "mutant.a"

    def run(data: bytes) -> str:
        path.write_bytes(data)
        try:
            list(archive.members(path))
        except (Damaged, OSError):
            return "refused"
        return "taken"
    return Target("archive", seeds.archive(), mutations.some_bytes, run, ["archive.py"])


def _key(seeds: Seeds) -> Target:
    path = seeds.folder / "key"
    path.unlink(missing_ok=True)
    path.with_name("key.pub").unlink(missing_ok=True)
    signature.generate(path)

    def run(data: bytes) -> str:
        path.write_bytes(data)
        answers = []
        for read in (signature.read_public, signature.read_private):
            try:
                read(path)
                answers.append("taken")
            except signature.KeyProblem:
                answers.append("refused")
        return "taken" if "taken" in answers else "refused"
    return Target("key", [KEY, path.read_bytes()], mutations.some_bytes, run, ["signature.py"])


# ---- bundles -----------------------------------------------------------------------------------------------------


def _bundle(seeds: Seeds) -> Target:
    """`decode` and the signatures: what those who trust the signer's key accept is the original, in all its parts."""
    path = seeds.folder / "signer"
    signature.generate(path)
    key, trusted = signature.read_private(path), [signature.read_public(path.with_name("signer.pub"))]
    made = seeds.bundles()
    signed = signature.sign(bundle.read(made.bundles[0]), key)

    def run(data: bytes) -> str:
        try:
            read = bundle.decode(data)
        except Damaged:
            return "refused"
        if signature.problems(read, trusted):
            return "not signed"
        if read != signed:
            raise Wrong("a bundle that is not the one that was signed passes for it")
        return "equal"
    return Target("bundle", [bundle.encode(signed)], mutations.bundle, run, ["bundle.py", "schema/__init__.py", "signature.py",
                                                                             "objectmap.py"])


def _verify(seeds: Seeds) -> Target:
    """The verifier beside image and fresh link: what it calls sound does in a process what the original does."""
    made = seeds.bundles()
    path = seeds.folder / "mutant.hotpatch"
    alone, beside_new = verify.Given([made.image]), verify.Given([made.image], [], [made.new[0]])
    original = bundle.read(made.bundles[0])
    counted = _effective(original.payloads[0])

    def run(data: bytes) -> str:
        path.write_bytes(data)
        verdict = verify.verify(path, alone)
        json.dumps(verdict.document())
        if not verdict.sound:
            return "refused"
        payload = container.check(data, Verdict("mutant")).payload(0)
        if payload == original.payloads[0]:
            return "sound, payload equal"
        if _effective(payload) == counted:
            return "sound, padding differs"
        if verify.verify(path, beside_new).sound:      # other code may be sound; that of the new source it is not
            raise Wrong("the verifier takes for the new source what does something else in the process")
        return "sound, not the new source"
    return Target("verify", [made.bundles[0].read_bytes()], mutations.bundle, run,
                  [f"verify/{n}.py" for n in ("__init__", "container", "linked", "tables", "elfcheck", "redirects", "updates",
                                              "frames", "agreement", "imports", "space", "completeness", "lockstep")])


def _effective(payload: bytes) -> tuple[object, ...]:
    """What of a payload can act in a process: segments, header, tables, functions and objects, relocations.

    The rest is padding between them, the headers of sections, and names for debuggers."""
    file = linked.Linked(payload, "payload")
    read = tables.Payload(file)
    placed = sorted({(s.value, s.size) for s in file.symbols if s.defined and s.size and file.load_of(s.value, s.size)
                     and file.sections[s.section % len(file.sections)].name != names.PAYLOAD_SECTION})
    written = [(u.old_content, u.size) for u in read.updates] + [(u.new_content, u.size) for u in read.updates]
    return ([dataclasses.astuple(read.header)], [(s.flags, s.address) for s in file.loads], read.redirects, read.parts,
            read.updates, read.module_words, [(at, _loaded(file, at, size)) for at, size in placed + written],
            sorted(file.relocations), [file.dynamic_symbol(r.symbol) for r in file.relocations if r.symbol],
            file.read(*read.unwind))


def _loaded(file: linked.Linked, start: int, size: int) -> bytes:
    """Bytes as they are once loaded: what a relocation writes over does not count."""
    found = bytearray(file.read(start, size))
    for r in file.relocations:
        if start <= r.offset <= start + size - 8:
            found[r.offset - start:r.offset - start + 8] = bytes(8)
    return bytes(found)


_MAKERS: dict[str, Callable[[Seeds], Target]] = {
    "elf": _elf, "object": _object, "unwind": _unwind, "image": _image, "objectmap": _objectmap, "archive": _archive,
    "key": _key, "bundle": _bundle, "verify": _verify}
NAMES = tuple(_MAKERS)
