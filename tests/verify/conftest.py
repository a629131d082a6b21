from __future__ import annotations

from pathlib import Path

import pytest
from bundles import Made, case_of, make
from casetools import Configuration

# Changed functions, one with a cold half; a new function and a new variable; a constant and a variable with new content; an
# import; and a second generation.
SOURCE = """
#include "case.h"
#include <math.h>
const int limits[6] = {1, 2, 3};
static int weights[4] = {1, 1};
static int calls;
__attribute__((cold, noinline)) void give_up(void) { puts("never"); abort(); }
NOINLINE int first(int n) { calls++; if (n > 1000) { give_up(); puts("x"); } return n + 1; }
NOINLINE int plain(int n) { return n - 1; }
static const char *volatile word = "word";
NOINLINE int second(int n) { return plain(n * limits[n & 3]) + weights[n & 3] + (int)strlen(word); }
void answer(const char *line) { printf("%d %d %d\\n", first((int)strlen(line)), second(2), calls); }
"""
SECOND = SOURCE.replace("n + 1", "third(n) + 20").replace("{1, 2, 3}", "{1, 2, 4}").replace("{1, 1}", "{1, 5}").replace(
    "NOINLINE int first", "static int times = 3;\nNOINLINE int third(int n) { return times++ + n; }\nNOINLINE int first"
    ).replace("n * limits", "7 * n * limits")
THIRD = SECOND.replace("third(n) + 20", "third(n) + 30")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Made:
    """An image with two generations."""
    folder = tmp_path_factory.mktemp("made")
    case = case_of(folder / "case", SOURCE, SECOND, THIRD)
    return make(case, Configuration.parse("gcc -O2 pie"), folder / "build", shared_folder)
