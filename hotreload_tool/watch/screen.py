"""What a watching session shows: plain lines, or on a terminal colours and a last line that says what it is about."""
from __future__ import annotations

import sys
from typing import Any

from .. import report


class Screen:
    """Everything it prints is flushed at once: people and tests wait for it."""

    def __init__(self) -> None:
        self._console: Any = None
        self._status: Any = None
        if sys.stdout.isatty():
            from rich.console import Console
            self._console = Console(highlight=False)

    def line(self, text: str, style: str = "") -> None:
        self.idle("")
        if self._console is None:
            print(text, flush=True)
        else:
            self._console.print(text, style=style or None, markup=False, soft_wrap=True)

    def results(self, results: list[report.Result], silent: bool) -> None:
        self.idle("")
        for result in results:
            if silent:
                result.lines = []
            report.show(result, as_json=False)
        sys.stdout.flush()
        sys.stderr.flush()

    def idle(self, text: str) -> None:
        """What it waits for, in the last line of a terminal; "" while others print."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        if text and self._console is not None:
            # Nothing moves while nothing happens: a spinner would wake the machine up many times a second.
            from rich.live import Live
            from rich.text import Text
            self._status = Live(Text(text, style="dim"), console=self._console, auto_refresh=False, transient=True)
            self._status.start(refresh=True)
