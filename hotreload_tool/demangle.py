"""C++ names as people write them, by the `c++filt` of binutils where there is one."""
from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import PurePosixPath

from .names import LOCAL_SEPARATOR

_SECONDS = 10     # bound on c++filt; names stay mangled if it hangs


def readable(names: Sequence[str]) -> list[str]:
    """Unique names (names.unique_local) for people: "draw(Canvas&)", "count (effects.o)"."""
    pairs = [name.partition(LOCAL_SEPARATOR) for name in names]
    symbols = _demangled(tuple(symbol for symbol, _, _ in pairs))
    return [f"{symbol} ({PurePosixPath(obj).name})" if obj else symbol
            for symbol, (_, _, obj) in zip(symbols, pairs)]


@functools.lru_cache(maxsize=64)
def _demangled(symbols: tuple[str, ...]) -> tuple[str, ...]:
    tool = shutil.which("c++filt")
    if not tool or not any(s.startswith("_Z") for s in symbols):
        return symbols
    try:
        answer = subprocess.run([tool], input="\n".join(symbols), capture_output=True, text=True,
                                timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return symbols      # a convenience: the mangled names are true as well
    lines = tuple(answer.stdout.splitlines())
    return lines if answer.returncode == 0 and len(lines) == len(symbols) else symbols
