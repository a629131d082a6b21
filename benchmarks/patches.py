"""Replay the security patches of Debian's source packages, and write what became of them into docs/real-patches.md.

usage: python benchmarks/patches.py [--write] [PACKAGE …]

Without PACKAGE: all of tests/real/patches/packages.json. --write replaces the rows of these packages in the page.
"""
from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO), str(REPO / "tests" / "live"), str(REPO / "tests" / "real")]

import replay  # noqa: E402

PAGE = REPO / "docs" / "real-patches.md"
BEGIN, END = "<!-- rows by benchmarks/patches.py -->\n", "<!-- end of rows -->\n"
_HEAD = ("| package | patch | functions | result | verified | as the fresh build | shows | pause |\n"
         "|---|---|---|---|---|---|---|---|\n")


def row(outcome: replay.Outcome) -> str:
    yes = {True: "yes", False: "no"}
    result = f"applied, {outcome.when}" if outcome.applied else f"not applied: {outcome.reason}"
    behaviour = (yes[outcome.equal] if outcome.equal else f"no: {outcome.reason}") if outcome.applied else ""
    cells = (outcome.package, outcome.patch, str(outcome.functions or ""), result, outcome.verified, behaviour,
             yes[outcome.exposed] if outcome.applied else "", f"{outcome.pause_us:.0f} µs" if outcome.applied else "")
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def page(text: str, outcomes: Sequence[replay.Outcome], packages: Sequence[str]) -> str:
    """The page with the rows of `packages` made anew, in the order of packages.json; others stay."""
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    ours = {*packages, "package"}
    kept = [line + "\n" for line in table.splitlines() if line.startswith("| ") and line.split(" ")[1] not in ours]
    order = list(replay.packages())
    rows = sorted([*kept, *map(row, outcomes)], key=lambda line: order.index(line.split(" ")[1]))
    return f"{before}{BEGIN}{summary(rows)}\n{_HEAD}{''.join(rows)}{END}{after}"


def summary(rows: Sequence[str]) -> str:
    cells = [re.split(r"(?<!\\) \| ", line.strip("|\n ")) for line in rows]
    applied = [c for c in cells if c[3].startswith("applied")]
    return (f"{len(rows)} patches of {len({c[0] for c in cells})} packages: {len(applied)} applied, "
            f"{sum(c[4] == 'yes' for c in applied)} of them verified against the fresh build, "
            f"{sum(c[5] == 'yes' for c in applied)} answer as the fresh build, "
            f"{sum(c[6] == 'yes' for c in applied)} otherwise than before.\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    known = replay.packages()
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=", ".join(known))
    parser.add_argument("--write", action="store_true", help=f"write the rows into {PAGE.relative_to(REPO)}")
    args = parser.parse_args()
    wanted = args.packages or list(known)
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"packages.json has no {', '.join(unknown)}")
    outcomes = []
    print(_HEAD, end="")
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="replay-") as folder:
            for outcome in replay.Replay(known[name], Path(folder)).outcomes():
                outcomes.append(outcome)
                print(row(outcome), end="", flush=True)
    if args.write:
        PAGE.write_text(page(PAGE.read_text(), outcomes, wanted))
    return 0 if all(o.equal for o in outcomes if o.applied) else 1


if __name__ == "__main__":
    sys.exit(main())
