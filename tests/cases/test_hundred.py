"""A hundred edits on one process: each goes live, and the state of the first version is there to the end."""
from __future__ import annotations

from pathlib import Path

import pytest
from casetools import configurations, read_case, run_case

EDITS = 100

SOURCE = """#include "case.h"
{patch}//# Expect: version {n} call {n} sum {sum}
static int calls;
static int sum;
{variable}static int step(void) {{ static int own; return own += {n}{use}; }}
void answer(const char *line) {{ (void)line; calls++; sum = step(); printf("version {n} call %d sum %d\\n", calls, sum); }}
"""


def version(n: int) -> str:
    """Every tenth edit brings a variable, which the next one takes away again."""
    brings = n % 10 == 0
    return SOURCE.format(n=n, sum=sum(range(1, n + 1)), patch="//# Patch: ok\n" if n > 1 else "",
                         variable=f"static int extra{n}; " if brings else "", use=f" + 0 * extra{n}++" if brings else "")


@pytest.mark.timeout(600)
def test_a_hundred_edits(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path / "hundred"
    folder.mkdir()
    for n in range(1, EDITS + 2):
        (folder / f"v{n}.c").write_text(version(n))
    run_case(read_case(folder), configurations(False)[0], tmp_path, tmp_path_factory.mktemp("shared"))
