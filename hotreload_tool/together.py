"""Several processes take one patch, all of them or none.

They agree among themselves by a word of memory that they share (struct hr_ballot, runtime/ballot.c), so that it does not
matter what becomes of this process in the meantime. It hands the memory out with the requests, withdraws the patch as soon
as it learns that one of them can't take it, and collects what each says.
"""
from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

from . import abi, process
from .errors import HotreloadError

Ask = Callable[[int | None], process.ApplyResult]     # gets the descriptor of the ballot; raises HotreloadError, OSError


@dataclass
class Outcome:
    """What each process answered, by pid. The patch is live in all of `results`, or in no process at all."""
    results: dict[int, process.ApplyResult] = field(default_factory=dict)
    failures: dict[int, Exception] = field(default_factory=dict)


class TakesItLater(process.NoAnswer):
    """All had agreed, and this one did not answer: it has the patch as soon as it runs on."""
    unknown = True

    def __init__(self, pid: int, seconds: float) -> None:
        super().__init__(pid, seconds)
        self.message = f"process {pid} did not answer within {seconds:g} s"
        self.detail = "it had agreed to the patch together with the others, and takes it as soon as it runs on"
        self.args = (f"{self.message}: {self.detail}",)


class Ballot:
    """The memory that the agents decide in. `members` processes are asked, at most abi.BALLOT_READY."""

    def __init__(self, members: int) -> None:
        if not 1 <= members <= abi.BALLOT_READY:
            raise HotreloadError(f"{members} processes at once; {abi.BALLOT_READY} can be patched together")
        self.file = os.memfd_create("hotreload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.file, abi.BALLOT.size)
            fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._memory = mmap.mmap(self.file, abi.BALLOT.size)
        except BaseException:
            os.close(self.file)
            raise
        abi.BALLOT.pack_into(self._memory, 0, abi.BALLOT_MAGIC, members, 0, 0)

    def withdraw(self) -> None:
        """The agents decide against the patch, unless they have decided. This never changes the word that they decide by."""
        self._memory[abi.BALLOT_WITHDRAWN] = 1

    def decision(self) -> abi.Decision:
        return abi.Decision(abi.BALLOT.unpack_from(self._memory)[3] >> abi.BALLOT_DECISION_SHIFT)

    def __enter__(self) -> Ballot:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._memory.close()
        os.close(self.file)


def left_alone() -> process.AgentError:
    """Why a process that was not even asked was not patched: another one could not be."""
    code = abi.Code["ABANDONED_BY_OTHERS"]
    return process.AgentError(code, code.entry.sentence)


def take(asks: Mapping[int, Ask]) -> Outcome:
    """Ask all processes at the same time (pid -> how). One alone is asked without a ballot.

    Every ask returns by itself, in its own time limit; where one fails, the others give up within milliseconds.
    """
    outcome = Outcome()
    if len(asks) == 1:
        (pid, ask), = asks.items()
        _ask(outcome, pid, ask, None)
    elif asks:
        with Ballot(len(asks)) as ballot:
            _ask_all(outcome, asks, ballot)
            outcome.failures = {pid: _known(pid, e, ballot.decision()) for pid, e in outcome.failures.items()}
    return outcome


def _known(pid: int, error: Exception, decision: abi.Decision) -> Exception:
    """What the decision tells of a process that did not answer."""
    if isinstance(error, process.NoAnswer | process.LostAnswer) and decision is abi.Decision.COMMITTED:
        return TakesItLater(pid, error.seconds)
    if isinstance(error, process.NoAnswer) and decision is abi.Decision.ABANDONED:
        return process.NoAnswer(pid, error.seconds)
    return error


def ask_each(asks: Mapping[int, Ask]) -> Outcome:
    """Ask one after the other, each for itself: for a dry run, which changes nothing and should hear all that refuse."""
    outcome = Outcome()
    for pid, ask in asks.items():
        _ask(outcome, pid, ask, None)
    return outcome


def _ask_all(outcome: Outcome, asks: Mapping[int, Ask], ballot: Ballot) -> None:
    with ThreadPoolExecutor(max_workers=len(asks)) as pool:
        waiting = [pool.submit(_ask, outcome, pid, ask, ballot) for pid, ask in asks.items()]
        try:
            for each in waiting:
                each.result()
        except BaseException:
            ballot.withdraw()
            raise


def _ask(outcome: Outcome, pid: int, ask: Ask, ballot: Ballot | None) -> None:
    try:
        outcome.results[pid] = ask(ballot.file if ballot else None)
    except (HotreloadError, OSError) as e:
        outcome.failures[pid] = e
        if ballot:
            ballot.withdraw()
