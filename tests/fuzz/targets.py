"""What is fuzzed: for each reader its good input, its mutations, and what it may answer.

`run` returns a word for the answer; it lets through whatever the reader raises beyond what it promises, and raises
Wrong if it took what it must not take. Seeds are built with the compiler at hand.
"""
from __future__ import annotations

import atexit
import hashlib
import io
import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import clients
import effect
import mutations
from bundles import Made, case_of, make
from casetools import Configuration

from hotreload_tool import archive, baseline, bundle, elf, instrument, objectmap, signature, unwind, verify
from hotreload_tool.errors import Damaged, Refused
from hotreload_tool.verify import container
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
# Imports, exceptions, constants with pointers, a thread-local, a cold part: what the first pair has none of.
FIRST_CXX = """
#include "case.h"
#include <stdexcept>
#include <string>
thread_local int turns = 2;
static const char *words[3] = {"one", "two", "three"};
extern const char *const names[2];
const char *const names[2] = {"old", "older"};
NOINLINE int third(int n) { if (n > 3) throw std::runtime_error("too many"); return n + turns; }
NOINLINE int guarded(int n) { try { return third(n); } catch (const std::exception &e) { return (int)strlen(e.what()); } }
void answer(const char *line) { printf("%d %s %s\\n", guarded((int)strlen(line)), words[1], names[1]); }
"""
SECOND_CXX = FIRST_CXX.replace("{ if (n > 3) throw", "{ turns++; if (getenv(\"NOTHING\")) abort(); if (n > 2) throw").replace(
    "\"two\"", "\"zwei\"").replace("\"older\"", "\"oldest\"").replace("strlen(e.what())", "strlen(e.what()) + atoi(\"7\")")
CASES = {"c": (FIRST, SECOND), "c++": (FIRST_CXX, SECOND_CXX)}
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
    kinds: Counter[str] = field(default_factory=Counter)     # of damage, where several are told apart
    sample: int = 40                 # one of so many executions is traced
    finish: Callable[[], None] = lambda: None     # a last look, after all executions


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

    def bundles(self, *versions: str, suffix: str = "c") -> Made:
        """Kept in the folder: a run that repeats a finding needs the image that it was found with."""
        home = self.folder / f"bundles-{hashlib.sha256(repr((versions, suffix)).encode()).hexdigest()[:8]}"
        known = home / "made.json"
        if not known.exists():
            shutil.rmtree(home, ignore_errors=True)
            case = case_of(home / "case", *(versions or (FIRST, SECOND)), suffix=suffix)
            made = make(case, Configuration.parse("gcc -O2 pie"), home / "build", home)
            known.write_text(json.dumps({k: v if isinstance(v, list) else str(v) for k, v in vars(made).items()}, default=str))
        found = json.loads(known.read_text())
        return Made(Path(found["image"]), [Path(p) for p in found["bundles"]], [Path(p) for p in found["new"]])

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
                  ["survey.py", "debuginfo.py", "typetext.py", "dwarf.py", "unwind.py", "instrument.py"])


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
    return Target("bundle", [bundle.encode(signed)], lambda random, data: mutations.bundle(random, data)[1], run,
                  ["bundle.py", "schema/__init__.py", "signature.py", "objectmap.py"])


def _verify(seeds: Seeds) -> Target:
    """The verifier beside image and fresh link: what it calls sound does in a process what the original does."""
    counted: Counter[str] = Counter()
    made = {key: seeds.bundles(*case, suffix="cc" if key == "c++" else "c") for key, case in CASES.items()}
    alone = verify.Given([m.image for m in made.values()])
    beside_new = {key: verify.Given([m.image], [], [m.new[0]], brief=True) for key, m in made.items()}
    good = [m.bundles[0].read_bytes() for m in made.values()]
    slim = [without_debug_information(data) for data in good]
    originals = {_build_id(data): (key, effect.Original(_payload(data))) for key, data in zip(made, slim)}

    def run(data: bytes) -> str:
        verdict = verify.verify_bytes(data, "mutant", alone)
        json.dumps(verdict.document())
        if not verdict.sound:
            return "refused"
        contents = container.check(data, Verdict("mutant"))
        assert contents is not None
        key, original = originals.get(contents.images[0]["build_id"], ("", None))
        if original is None:
            assert "redirect-slots" in {o.check for o in verdict.of("unchecked")}
            return "sound by itself, no image"
        payload = contents.payload(0)
        if payload in (original.data, _payload(good[list(made).index(key)])):
            return "sound, payload equal"
        if original.acts_like(payload):
            return "sound, acts the same"
        if verify.verify_bytes(data, "mutant", beside_new[key]).sound:      # other code may be, but is not that of the new source
            raise Wrong("the verifier takes for the new source what does something else in the process")
        return "sound, not the new source"

    def mutate(random: Random, data: bytes) -> bytes:
        kind, mutant = mutations.bundle(random, data)
        counted[kind] += 1
        return mutant
    return Target("verify", [*good[:1], *slim], mutate, run, VERIFIER, counted, sample=1000)


def _socket(seeds: Seeds) -> Target:
    """Clients of a live agent, in C under the sanitizers: no lines of Python are counted."""
    folder = seeds.folder / f"hostile-{os.getpid()}"
    folder.mkdir()
    os.environ["HOTRELOAD_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="hr-")
    hostile = clients.Hostile(folder)
    hostile.__enter__()
    atexit.register(shutil.rmtree, os.environ["HOTRELOAD_RUNTIME_DIR"], ignore_errors=True)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(hostile.__exit__)
    good = [json.dumps(steps).encode() for steps in clients.good(hostile.image.build_id)]
    return Target("socket", good, clients.script, lambda data: hostile.run(json.loads(data)), [], finish=hostile.finish)


VERIFIER = [f"verify/{n}.py" for n in ("__init__", "container", "linked", "tables", "form", "elfcheck", "redirects", "updates",
                                       "frames", "agreement", "imports", "space", "side", "completeness", "steps", "lockstep")]


def _payload(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read("payload-0.so")


def _build_id(data: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return str(json.loads(archive.read("manifest.json"))["images"][0]["build_id"])


def without_debug_information(data: bytes) -> bytes:
    """The bundle with its payload stripped of what only debuggers read: more of the damage then hits what counts."""
    with tempfile.TemporaryDirectory() as folder:
        payload = Path(folder, "payload.so")
        payload.write_bytes(_payload(data))
        subprocess.run(["objcopy", "--strip-debug", payload], check=True, timeout=60)
        return mutations.with_payload(data, payload.read_bytes())


_MAKERS: dict[str, Callable[[Seeds], Target]] = {
    "elf": _elf, "object": _object, "unwind": _unwind, "image": _image, "objectmap": _objectmap, "archive": _archive,
    "key": _key, "bundle": _bundle, "verify": _verify, "socket": _socket}
NAMES = tuple(_MAKERS)
