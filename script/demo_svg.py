"""Runs the demo for real and draws what it printed as docs/demo.svg (or the path given). Fails if the demo fails."""
from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

REPO = Path(__file__).resolve().parents[1]
WIDTH = 112
SECONDS = 300
STYLES = ((r"^\S.*", "bold cyan"), (r"^  \$ .*", "bold"), (r"^  - .*", "red"), (r"^  \+ .*", "green"),
          (r"a big fountain", "bold green"))


def main(target: Path) -> int:
    done = subprocess.run([sys.executable, REPO / "script/demo_run.py"], check=False, text=True, timeout=SECONDS,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        return done.returncode
    if str(REPO) in done.stdout:
        print(f"demo_svg: the output names {REPO}, which means nothing to readers", file=sys.stderr)
        return 1
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    for line in ["$ script/demo", *done.stdout.rstrip().splitlines()]:
        console.print(styled(line), overflow="fold")
    drawn = console.export_svg(title="script/demo", unique_id="demo")
    target.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL))   # readers fetch no fonts for it
    return 0


def styled(line: str) -> Text:
    text = Text(line)
    for pattern, style in STYLES:
        text.highlight_regex(re.compile(pattern), style)
    return text


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else REPO / "docs/demo.svg"))
