"""Hostile input, and the inputs of past findings: each gets its error in bounded time and memory.

Every input is run in a process of its own, with the limits of fuzz.py.
"""
from __future__ import annotations

import base64
import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import mutations
import pytest
import targets
from bundles import Broken, Made

from hotreload_tool import archive, bundle, elf, instrument, signature
from hotreload_tool.errors import Damaged, Refused
from hotreload_tool.verify import Given, verify

LIMITED = """
import resource, signal, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (40, 40))
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from hotreload_tool import bundle
from hotreload_tool.errors import Damaged
from hotreload_tool.verify import Given, verify
path = Path(sys.argv[2])
try:
    bundle.read(path)
    print("read")
except Damaged as e:
    print("damaged:", str(e)[:300])
verdict = verify(path, Given([Path(p) for p in sys.argv[3:]]))
print("sound" if verdict.sound else f"failed: {' '.join(verdict.failed)}")
"""
REPO = Path(__file__).resolve().parents[2]


def answers(data: bytes, folder: Path, *images: Path) -> tuple[str, str]:
    """What `bundle.read` and the verifier say, within one gigabyte and 40 s of processor time."""
    path = folder / "hostile.hotpatch"
    path.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", LIMITED, REPO, path, *images], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    read, verified = done.stdout.splitlines()
    return read, verified


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return targets.Seeds(tmp_path_factory.mktemp("hostile")).bundles()


@pytest.fixture(scope="module")
def good(made: Made) -> dict[str, bytes]:
    with zipfile.ZipFile(made.bundles[0]) as zipped:
        return {info.filename: zipped.read(info) for info in zipped.infolist()}


def test_the_good_bundle_is_sound(made: Made, tmp_path: Path) -> None:
    assert answers(made.bundles[0].read_bytes(), tmp_path, made.image) == ("read", "sound")


# ---- archives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [1 << 30, 200 << 20])
def test_bombs(zeros: int, good: dict[str, bytes], tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("manifest.json", good["manifest.json"])
        for name in ("payload-0.so", "maps-0.json"):
            with zipped.open(name, "w") as member:
                for _ in range(zeros >> 20 if name[0] == "p" else 1):
                    member.write(bytes(1 << 20))
    read, verified = answers(out.getvalue(), tmp_path)
    assert "would unpack to" in read and verified == "failed: archive"


@pytest.mark.parametrize("name", ["../../../../tmp/x", "/tmp/x", "payload-0.so/../x", ""])
def test_names_that_lead_elsewhere(name: str, good: dict[str, bytes], tmp_path: Path) -> None:
    listed = [(name if n == "payload-0.so" else n, data) for n, data in good.items()]
    read, verified = answers(mutations.pack(listed), tmp_path)
    assert "holds" in read and verified == "failed: archive"
    assert [p.name for p in tmp_path.iterdir()] == ["hostile.hotpatch"]


def test_links_as_members(good: dict[str, bytes], tmp_path: Path) -> None:
    read, verified = answers(mutations.pack(list(good.items()), mode=0o120777), tmp_path)
    assert "is not a plain file" in read and verified == "failed: archive"


def test_a_great_many_members(tmp_path: Path) -> None:
    read, verified = answers(mutations.pack([(f"payload-{n}.so", b"") for n in range(60000)]), tmp_path)
    assert "holds" in read and verified == "failed: archive"


# ---- manifests and maps ------------------------------------------------------------------------------------------


def test_nesting_as_deep_as_json_can_be_read(good: dict[str, bytes], tmp_path: Path) -> None:
    """Somewhere below the bound of the JSON reader, what looks at its result once met its own."""
    path = tmp_path / "deep.hotpatch"
    for depth in range(930, 1001):
        text = good["manifest.json"][:-1] + b', "x": ' + b"[" * depth + b"]" * depth + b"}"
        path.write_bytes(mutations.pack(list((good | {"manifest.json": text}).items())))
        with pytest.raises(Damaged):
            bundle.read(path)
        assert verify(path, Given()).failed == ["manifest-schema"]


def test_maps_nested_as_deep_as_json_can_be_read(made: Made, tmp_path: Path) -> None:
    broken, path = Broken.of(made.bundles[0]), tmp_path / "deep.hotpatch"
    for depth in range(930, 1001):
        broken.maps = b'[{"object": "a.o", "x": ' + b"[" * depth + b"]" * depth + b"}]"
        path.write_bytes(broken.data())
        with pytest.raises(Damaged):
            bundle.read(path)
        assert set(verify(path, Given()).failed) <= {"maps-hash", "generation-id"}


def test_millions_of_wrong_entries(good: dict[str, bytes], tmp_path: Path) -> None:
    manifest = json.loads(good["manifest.json"])
    manifest["images"] = []
    text = json.dumps(manifest).replace('"images": []', '"images": [' + "[]," * 3_000_000 + "[]]")
    assert answers(mutations.pack(list((good | {"manifest.json": text.encode()}).items()), zipfile.ZIP_DEFLATED), tmp_path)[1] \
        == "failed: manifest-schema"


# ---- payloads ----------------------------------------------------------------------------------------------------


def huge_table(b: Broken) -> None:
    last = max(i for i, s in enumerate(b.file.segments) if s.type == "PT_LOAD")
    b.set_header(last, size=1 << 40)
    b.set_pointer(b.file.entry + 128, b.file.segments[last].address + 4096)
    b.set_count("redirects", 4_000_000)


def huge_dynamic(b: Broken) -> None:
    last = max(i for i, s in enumerate(b.file.segments) if s.type == "PT_LOAD")
    b.set_header(last, size=1 << 40)
    b.set_header(b.header_of("PT_DYNAMIC"), address=b.file.segments[last].address + 4096, size=1 << 39)


def many_symbols(b: Broken) -> None:
    last = max(i for i, s in enumerate(b.file.segments) if s.type == "PT_LOAD")
    b.set_header(last, size=1 << 40)
    at = b.relocation(b.file.relocations[0].offset)
    assert at is not None
    b.write(at + 8, struct.pack("<Q", 0xffffffff << 32 | 1))


def unrelocated(b: Broken) -> None:
    """The dynamic section ends before it names any relocation."""
    where = next(s for s in b.file.segments if s.type == "PT_DYNAMIC")
    b.write(where.address, bytes(16))


def unrelocated_pointer(b: Broken) -> None:
    """Of one word alone: the pointer of a redirect to its slot stays as linked."""
    at = b.relocation(b.row("redirects", 0, 5))
    assert at is not None
    b.set_word(b.row("redirects", 0, 5), b.tables.redirects[0].slot)
    b.write(at + 8, bytes(8))


@pytest.mark.parametrize("change, failed", [
    (huge_table, "tables"), (huge_dynamic, "payload-elf"), (many_symbols, "relocation-kinds"), (unrelocated, "payload-elf"),
    (unrelocated_pointer, "tables")], ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_payloads(change: Callable[[Broken], None], failed: str, made: Made, tmp_path: Path) -> None:
    broken = Broken.of(made.bundles[0])
    change(broken)
    read, verified = answers(broken.data(), tmp_path, made.image)
    assert read == "read" and failed in verified


def test_section_names_without_an_end(made: Made, tmp_path: Path) -> None:
    """Many headers whose name is most of the file; and many sections that are all of it."""
    broken = Broken.of(made.bundles[0])
    count = 20000
    names = b"x" * (1 << 20) + b"\0"
    at = len(broken.payload)
    table = at + len(names)
    row = struct.pack("<IIQQQQIIQQ", 0, elf.SHT_STRTAB, 0, 0, at, len(names), 0, 0, 1, 0)
    empty = struct.pack("<IIQQQQIIQQ", 0, elf.SHT_PROGBITS, 0, 0, 0, 0, 0, 0, 1, 0)
    broken.payload += names + row + empty * (count - 1)
    struct.pack_into("<Q", broken.payload, 40, table)
    struct.pack_into("<HH", broken.payload, 60, count, 0)
    assert answers(broken.data(), tmp_path, made.image)[1].startswith("failed: payload-elf")
    broken.payload[table:] = row * count
    assert answers(broken.data(), tmp_path, made.image)[1].startswith("failed: payload-elf")


# ---- other files -------------------------------------------------------------------------------------------------


def test_a_thin_archive_with_a_zero_in_a_name(tmp_path: Path) -> None:
    header = b"a\0b/".ljust(48) + b"4".ljust(10) + b"`\n"
    path = tmp_path / "lib.a"
    path.write_bytes(b"!<thin>\n" + header)
    with pytest.raises(Damaged, match="is no name of a file"):
        list(archive.members(path))


def test_a_private_key_of_an_unknown_algorithm(tmp_path: Path) -> None:
    path = tmp_path / "key"
    signature.generate(path)
    lines = path.read_bytes().splitlines()
    # DER: the last byte of the algorithm's identifier, 1.3.101.112, becomes another one.
    der = bytearray(base64.b64decode(lines[1]))
    der[der.index(b"\x2b\x65\x70") + 1] = 0x0b
    path.write_bytes(b"\n".join([lines[0], base64.b64encode(bytes(der)), lines[2], b""]))
    with pytest.raises(signature.KeyProblem, match="not a private key"):
        signature.read_private(path)


def test_a_symbol_table_whose_names_are_no_string_table(tmp_path: Path) -> None:
    data = bytearray(targets.Seeds(tmp_path).objects()[0])
    start, = struct.unpack_from("<Q", data, 40)
    symtab = elf.parse(bytes(data)).symtab
    struct.pack_into("<I", data, start + 64 * symtab.index + 40, symtab.index)
    with pytest.raises(Refused, match="damaged"):
        instrument.instrument(bytes(data), "a.o")
