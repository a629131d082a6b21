"""lines.py: the source lines of code, from debug information that may be damaged."""
from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from hotreload_tool.verify import lines
from hotreload_tool.verify.linked import Linked


def test_damaged_tables_say_nothing_of_lines(tmp_path: Path) -> None:
    """A size of .dynsym that is no multiple of an entry's: pyelftools reads no section of such a file."""
    (tmp_path / "f.c").write_text("int f(int x) {\n  return x + 1;\n}\n")
    subprocess.run(["gcc", "-g", "-O0", "-shared", "-fPIC", "-o", "f.so", "f.c"], cwd=tmp_path, check=True)
    data = bytearray((tmp_path / "f.so").read_bytes())
    good = Linked(bytes(data), "good")
    code = next(s for s in good.symbols if s.name == "f")
    assert any(lines.own(good, code.value + at, 2) for at in range(code.size))
    start, number = struct.unpack_from("<Q", data, 40)[0], next(i for i, s in enumerate(good.sections) if s.name == ".dynsym")
    size, = struct.unpack_from("<Q", data, start + 64 * number + 32)
    struct.pack_into("<Q", data, start + 64 * number + 32, size + 1)
    damaged = Linked(bytes(data), "damaged")
    assert not any(lines.own(damaged, code.value + at, 2) for at in range(code.size))
