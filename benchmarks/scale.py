"""How the work of a patch grows with the program: the same edit of one unit, in programs of more and more functions.

usage: python benchmarks/scale.py [--objects N …] [--functions N] [--rounds N]

The maps of the objects of a small generated project (benchmarks/generate.py) are repeated under other names until there are
as many objects as wanted, and become a linked file with a symbol table, as the linker would write it, without its code. So
a million functions need no hour of compiling. The image is filed and indexed as after a link; then, each in a process of
its own and in turn for all sizes, the state is opened and the edit of one unit is planned: by the index, and once by
reading the whole image. Linking the payload and what the process does are not part of it: neither sees the image's size.
"""
from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO), str(REPO / "tests")]

import generate  # noqa: E402
from generate import Shape  # noqa: E402
from results import Result, Table, Target  # noqa: E402

import elfwriter  # noqa: E402
from hotreload_tool import abi, baseline, building, instrument, settings  # noqa: E402
from hotreload_tool.difference import entries  # noqa: E402
from hotreload_tool.objectmap import ObjectMap  # noqa: E402

_COMPILE = ("-O1 -Iinclude -ffunction-sections -fdata-sections -fno-common -fno-ipa-ra -fno-gnu-unique -g "
            "-fdebug-types-section").split()
_UNITS = 48                  # of the small project: one of each variant
_CODE, _SLOTS, _DATA = 0x1000_0000, 0x4000_0000, 0x6000_0000        # where they lie in the made-up image
_SYM = struct.Struct("<IBBHQQ")


# ---- an image of any size --------------------------------------------------------------------------------------


def units(folder: Path, functions: int) -> list[str]:
    """The maps of the units of a small project, as JSON, and that of unit 1 after an edit."""
    shape = Shape(_UNITS + 2, (_UNITS + 2) * functions)
    generate.write(folder, shape)
    maps = [_compiled(folder, shape, unit) for unit in range(_UNITS)]
    generate.edit(folder, 1, 4711, shape)
    return [*maps, _compiled(folder, shape, 1)]


def _compiled(folder: Path, shape: Shape, unit: int) -> str:
    source = shape.path(unit)
    subprocess.run(["g++" if shape.is_cxx(unit) else "gcc", *_COMPILE, "-c", source, "-o", "unit.o"], cwd=folder, check=True)
    chosen = settings.check({s.name: s.default for s in settings.SETTINGS})
    building.instrument_object(str(folder / "unit.o"), f"build/u{unit:05}.o", chosen)
    described = instrument.carried_map(folder / "unit.o")
    assert described is not None
    return json.dumps(described.to_json())


def renamed(text: str, unit: int, number: int) -> ObjectMap:
    """The map of `unit` as that of unit `number`; what it calls in other units is called in units beside that one."""
    distance = number - unit
    text = re.sub(r"u(\d{5})", lambda m: f"u{(int(m[1]) + distance) % 100_000:05}", text)
    return ObjectMap.from_json(json.loads(text))


def write_image(path: Path, maps: Sequence[ObjectMap], build_id: str) -> int:
    """A linked file of these objects: maps, slots and symbols, no code. Returns how many functions it has."""
    names, symbols, slots, known = bytearray(b"\0"), [(0, 0, 0, 0, 0, 0)], [], set()

    def add(name: str, kind: int, other: int, section: int, address: int, size: int) -> None:
        symbols.append((len(names), kind, other, section, address, size))
        names.extend(name.encode() + b"\0")

    for m in maps:
        for entry in entries(m):
            if entry.name in known:
                continue
            known.add(entry.name)
            if entry in m.data:
                add(entry.name, 1, 2, 5, _DATA + 64 * len(known), entry.size)
                continue
            body, slot = _CODE + 64 * len(known), _SLOTS + 8 * len(slots)
            slots.append(body)
            add(entry.name, 2, 2, 3, body + 32, 11)
            add(entry.name + ".hr_slot", 1, 2, 4, slot, 8)
            add(entry.symbol if entry.binding == "local" else entry.name + ".hr_body", 2, 0, 3, body, entry.size)
    runtime = _DATA - 0x1000
    sections = [
        elfwriter.Section(".note.gnu.build-id", elfwriter.note(b"GNU", 3, bytes.fromhex(build_id)), type="NOTE", flags="A",
                          align=4, address=0x100),
        elfwriter.Section(".note.hotreload", elfwriter.note(b"hotreload", 1, struct.pack("<q", runtime - 0x218)), type="NOTE",
                          flags="A", align=4, address=0x200),
        elfwriter.Section(".text", type="NOBITS", size=0x2000_0000, flags="AX", align=16, address=_CODE),
        elfwriter.Section(".data.rel.ro", struct.pack(f"<{len(slots)}Q", *slots), flags="AW", align=8, address=_SLOTS),
        elfwriter.Section(".bss", type="NOBITS", size=0x1000_0000, flags="AW", align=8, address=_DATA),
        elfwriter.Section(".data", struct.pack("<IIiIQQQ", 0x31474D49, abi.ABI, 0, 0, 0, 0x7000_0000, 0x7800_0000) + bytes(64),
                          flags="AW", align=8, address=runtime),
        elfwriter.Section(".hotreload.map", b"".join(m.pack() for m in maps), align=8)]
    path.write_bytes(_with_symbols(elfwriter.image("EXEC", sections, [elfwriter.Symbol("a", ".text", type="FUNC")]),
                                   b"".join(_SYM.pack(*s) for s in symbols), bytes(names)))
    return len(slots)


def _with_symbols(image: bytes, symbols: bytes, names: bytes) -> bytes:
    """The same file with another symbol table: the one that `elfwriter` writes costs an object for each symbol."""
    out = bytearray(image)
    headers, count = struct.unpack_from("<Q", image, 40)[0], struct.unpack_from("<H", image, 60)[0]
    table = next(i for i in range(count) if struct.unpack_from("<I", image, headers + 64 * i + 4)[0] == 2)
    strings = struct.unpack_from("<I", image, headers + 64 * table + 40)[0]
    for index, data in ((table, symbols), (strings, names)):
        out += bytes(-len(out) % 8)
        struct.pack_into("<QQ", out, headers + 64 * index + 24, len(out), len(data))
        out += data
    return bytes(out)


# ---- one measurement, in a process of its own --------------------------------------------------------------------


def measure(store: Path, build_id: str, edited: Path, by_index: bool) -> dict[str, float]:
    """CPU seconds and peak memory of opening the state and planning the edit; run as a child."""
    code = """
import json, re, sys, time
from hotreload_tool import baseline, live, plan
from hotreload_tool.objectmap import ObjectMap
new = ObjectMap.from_json(json.load(open(sys.argv[3])))
store = baseline.Store(sys.argv[1])
begun = time.process_time()
state = store.live_state(sys.argv[2]) if sys.argv[4] == "index" else live.from_image(store.load(sys.argv[2]))
made = plan.make_plan(state, {new.object: new})
used = time.process_time() - begun
assert [c.name for c in made.changed] == ["u00001_value"], made
print(json.dumps({"cpu": used, "rss": int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024}))
"""
    argv = [sys.executable, "-c", code, str(store), build_id, str(edited), "index" if by_index else "whole"]
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def prepare(folder: Path, texts: Sequence[str], objects: int) -> dict[str, Any]:
    """File an image of so many objects; the facts about it."""
    maps = [renamed(texts[n % _UNITS], n % _UNITS, n) for n in range(objects)]
    build_id = f"{objects:08x}" * 5
    functions = write_image(folder / "image", maps, build_id)
    del maps
    begun = time.process_time()
    baseline.Store(folder / f"store{objects}").file_image(folder / "image", "build/app")
    indexing = time.process_time() - begun
    filed = folder / f"store{objects}" / "baselines" / build_id
    return {"objects": objects, "functions": functions, "build_id": build_id, "store": folder / f"store{objects}",
            "indexing": indexing, "image": (filed / "image").stat().st_size, "index": (filed / "index").stat().st_size}


def rounds(cases: Sequence[dict[str, Any]], edited: Path, count: int) -> Iterator[tuple[int, str, dict[str, float]]]:
    for number in range(count):
        order = [(c, True) for c in cases for _ in range(2)] + ([(c, False) for c in cases] if number == 0 else [])
        random.Random(number).shuffle(order)
        for case, by_index in order:
            yield case["objects"], "index" if by_index else "whole", measure(case["store"], case["build_id"], edited, by_index)


def result(cases: Sequence[dict[str, Any]], found: Sequence[tuple[int, str, dict[str, float]]]) -> Result:
    rows: list[list[str | float]] = []
    cpu: dict[int, float] = {}
    for case in cases:
        mine = {how: [f for o, h, f in found if (o, h) == (case["objects"], how)] for how in ("index", "whole")}
        times = [f["cpu"] for f in mine["index"]]
        cpu[case["functions"]] = statistics.median(times)
        rows.append([case["objects"], case["functions"], round(cpu[case["functions"]] * 1000, 1), round(min(times) * 1000, 1),
                     round(statistics.median(f["rss"] for f in mine["index"])),
                     *(round(mine["whole"][0][key] * factor) for key, factor in (("cpu", 1000), ("rss", 1))),
                     round(case["image"] / 1e6, 1), round(case["index"] / 1e6, 1), round(case["indexing"], 1)])
    least, most = min(cpu), max(cpu)
    ratio = cpu[most] / cpu[least]
    target = Target("opening and planning a patch, most functions beside fewest", "≤ 1.5", f"{ratio:.2f}", ratio <= 1.5)
    table = Table("The same edit of one unit", [
        "objects", "functions", "patch, CPU ms (median)", "least", "memory MiB", "reading the whole image, ms", "memory MiB",
        "image MB", "index MB", "making the index, CPU s"], rows)
    raw = {"cases": [{**c, "store": str(c["store"].name)} for c in cases], "measured": found}
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    return Result("scale", "As the program grows", about, [table], [target], order=40, raw=raw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--functions", type=int, default=100, help="in each object")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        texts = units(folder, args.functions)
        edited = folder / "edited.json"
        edited.write_text(json.dumps(renamed(texts[-1], 1, 1).to_json()))
        cases = [prepare(folder, texts, objects) for objects in args.objects]
        found = list(rounds(cases, edited, args.rounds))
    made = result(cases, found)
    for line in (made.tables[0].columns, *made.tables[0].rows):
        print(*line, sep=" | ")
    print(made.write())


if __name__ == "__main__":
    main()
