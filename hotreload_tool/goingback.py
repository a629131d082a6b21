"""The payloads that a revert needs: of generations whose code was unmapped since, and is live again after it."""
from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from . import abi, bundle, process
from .baseline import Store
from .errors import HotreloadError
from .layered import later

_STATUS_SECONDS = 5.0
_COPY = "/memfd:"         # the runtime maps copies in memory, which bear the names of the files (proc(5))


def revert(pid: int, build_id: str, generation: int, stores: Sequence[Store],
           send: Callable[[int, Sequence[Path]], process.ApplyResult]) -> process.ApplyResult:
    """`send(generation, payloads)`, the request itself, with what it needs. What one request has no room for is mapped by others
    before: reverts to where the image is."""
    payloads = unmapped(pid, build_id, generation, stores)
    while len(payloads) > abi.MAX_PAYLOADS:
        process.revert(pid, build_id, _image(pid, build_id).generation, payloads=payloads[:abi.MAX_PAYLOADS])
        payloads = payloads[abi.MAX_PAYLOADS:]
    return send(generation, payloads)


def step_by_step(pid: int, build_id: str, generation: int, stores: Sequence[Store],
                 send: Callable[[int, Sequence[Path]], process.ApplyResult]) -> process.ApplyResult:
    """The same, one generation after the other: the last resort where the addresses of old code are those of code that is live.
    At each step they are not: what a generation took out of use was there when it came."""
    answer = None
    for target in range(_image(pid, build_id).generation - 1, generation - 1, -1):
        answer = revert(pid, build_id, target, stores, send)
    return answer if answer is not None else revert(pid, build_id, generation, stores, send)


def unmapped(pid: int, build_id: str, generation: int, stores: Sequence[Store]) -> list[Path]:
    """Files of payloads. None if the bundles are in none of these stores: then the agent says what it lacks."""
    loaded = next((i for i in process.status(pid, _STATUS_SECONDS).images if i.build_id == build_id), None)
    if loaded is None or not loaded.unmapped:
        return []
    mapped = {p.generation for p in loaded.payloads}
    for store in stores:
        with contextlib.suppress(HotreloadError, OSError):
            found = store.with_index(build_id, functools.partial(_needed, store, build_id, generation, mapped))
            if found is not None:
                return found
    return []


def _needed(store: Store, build_id: str, generation: int, mapped: set[int]) -> list[Path] | None:
    """Files of the payloads that a generation calls, but for those `mapped`; None if the store has no such generation."""
    live = store.live_state(build_id, generation)
    if live.generation != generation:
        return None
    wanted = sorted({f.generation for f in later(live.functions).values()} - mapped - {0})
    chain = store.chain(build_id)
    patches = [bundle.read(chain[g - 1]).image(build_id) for g in wanted]
    return [store.payload(patch[1]) for patch in patches if patch is not None]


def stores(pid: int, own: Path) -> list[Store]:
    """Where the bundles of the process may be: `own`, and the stores whose payloads it has mapped."""
    found = {own: None}
    for line in Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").splitlines():
        path = Path(line.partition(_COPY)[2].removesuffix(" (deleted)"))
        if path.is_absolute() and path.parent.name == "payloads":
            found.setdefault(path.parent.parent)
    return [Store(root) for root in found if root.is_dir()]


def _image(pid: int, build_id: str) -> process.LiveImage:
    return next(i for i in process.status(pid, _STATUS_SECONDS).images if i.build_id == build_id)
