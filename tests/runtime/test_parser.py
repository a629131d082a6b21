"""The agent's payload parser under AddressSanitizer and UBSan, fed with damaged payloads."""
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from runtimetools import SANITIZE, SOURCES, Image, Payload, Recipe, Update, build, make_payload

from hotreload_tool import abi

SOURCE = """
#include <stdio.h>
#include <stdlib.h>
extern int counter;
extern int not_there(void) __attribute__((weak));
static int calls;
unsigned long tls_index[2];
int value_new(void) {
  if (not_there)
    printf("%s %d", getenv("NOTHING"), ++calls);
  return 1000 + ++counter;
}
"""


@pytest.fixture(scope="module")
def image(folder: Path) -> Image:
    return build(folder, "mutate", [SOURCES / "mutate.c"], flags=SANITIZE, runtime_flags=tuple(SANITIZE), link=SANITIZE)


@pytest.fixture(scope="module")
def payload(folder: Path, image: Image) -> Payload:
    """It has every table and every kind of relocation."""
    update = Update("counter", b"\x7f\0\0\0", b"\0\0\0\0", abi.UpdateFlags.MERGE)
    return make_payload(folder, Recipe(image, SOURCE, {"value": "value_new"}, [update], tls=["tls_index"]))


def mutate(image: Image, payload: Payload, seed: int, rounds: int) -> dict[str, int]:
    """How often each answer was given."""
    done = subprocess.run([image.path, payload.path, str(seed), str(rounds)], capture_output=True, text=True, timeout=280,
                          env={"HOTRELOAD_DISABLE": "1", "UBSAN_OPTIONS": "print_stacktrace=1"})
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout + done.stderr
    return {name: int(n) for name, n in (line.split() for line in done.stdout.splitlines()[:-1])}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_damaged_payloads(image: Image, payload: Payload, seed: int, full_size: bool) -> None:
    rounds = 50000 if full_size else 3000
    seen = mutate(image, payload, seed, rounds)
    assert sum(seen.values()) == rounds
    assert seen["BAD_PAYLOAD"] > rounds // 4
    assert {"OK", "BAD_PAYLOAD", "WRONG_IMAGE", "OUT_OF_ORDER", "NO_ARENA", "MISSING_IMPORT", "UNEXPECTED_SLOT",
            "UNSUPPORTED", "ABI_MISMATCH"} <= seen.keys()       # the damage reaches every stage
