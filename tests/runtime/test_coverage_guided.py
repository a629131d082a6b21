"""The agent's payload parser under libFuzzer, AddressSanitizer and UBSan, where clang has its fuzzer library."""
from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from runtimetools import ARENA, RUNTIME, SOURCES, Image, Recipe, Update, make_payload

from hotreload_tool import abi

_CHECKS = "address,undefined"
NEW = """
#include <stdlib.h>
extern int counter;
static int calls;
unsigned long tls_index[2];
int value_new(void) { return getenv("NOTHING") ? ++calls : 1000 + ++counter; }
"""


def build(folder: Path) -> Path:
    """The fuzzer. Skips where clang cannot link one."""
    clang = shutil.which("clang")
    if clang is None:
        pytest.skip("clang is not installed")
    probe = folder / "probe.c"
    probe.write_text("int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n > 1u << 30; }\n")
    if subprocess.run([clang, f"-fsanitize=fuzzer,{_CHECKS}", probe, "-o", folder / "probe"], capture_output=True).returncode:
        pytest.skip("clang has no fuzzer library (libclang-rt-dev)")
    fuzzer, common = folder / "fuzzed", ["-O1", "-g", "-std=gnu11", "-DHOTRELOAD=1", f"-I{RUNTIME}", f"-I{SOURCES}",
                                         "-fPIC", "-fvisibility=hidden", f"-DHOTRELOAD_ARENA_SIZE={ARENA}"]
    objects = []
    for source in (SOURCES / "fuzzed.c", *sorted(s for s in RUNTIME.glob("*.c") if s.stem != "poll")):
        objects.append(folder / f"{source.stem}.o")
        subprocess.run([clang, *common, f"-fsanitize=fuzzer-no-link,{_CHECKS}", "-fno-sanitize-recover=all", "-c",
                        source, "-o", objects[-1]], check=True, timeout=120)
    subprocess.run([clang, f"-fsanitize=fuzzer,{_CHECKS}", *objects, "-o", fuzzer, "-Wl,--build-id=sha1", "-pthread", "-ldl"],
                   check=True, timeout=120)
    return fuzzer


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_payload_parser(folder: Path, tmp_path: Path, full_size: bool) -> None:
    fuzzer, runs = build(tmp_path), 1_000_000 if full_size else 5000
    image = Image.read(fuzzer)
    update = Update("counter", b"\x7f\0\0\0", b"\0\0\0\0", abi.UpdateFlags.MERGE)
    payload = make_payload(tmp_path, Recipe(image, NEW, {"value": "value_new"}, [update], tls=["tls_index"]))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    shutil.copy(payload.path, corpus / "good")
    done = subprocess.run([fuzzer, f"-runs={runs}", "-max_len=32768", "-timeout=20", "-rss_limit_mb=2048", "-seed=1",
                           "-print_final_stats=1", f"-artifact_prefix={tmp_path}/", corpus], capture_output=True, text=True,
                          timeout=1700, env={**os.environ, "HOTRELOAD_DISABLE": "1"})
    assert done.returncode == 0, done.stderr[-6000:]
    assert f"Done {runs} runs" in done.stderr, done.stderr[-3000:]
    assert len(list(corpus.iterdir())) > 5, "no damaged payload reached anything new"
