"""Who kept a patch from being made: agents give a thread and addresses, people want names and advice."""
from __future__ import annotations

from pathlib import Path

from . import elf, process
from .errors import HotreloadError
from .names import BODY_SUFFIX
from .report import duration, readable_name

_NEW_SUFFIX = ".hr_new"       # payload.NEW_SUFFIX; that module needs much that a failed patch does not
_STATUS_SECONDS = 2.0


def explain(pid: int, error: Exception) -> Exception:
    """`error` of an apply or revert, with the function's name and what to do in its `detail`, where a thread was in the way.

    `error.document["blocked"]` then has `name` too. The image or payload that holds the function is read for that.
    """
    blocked = error.document.get("blocked") if isinstance(error, process.AgentError) else None
    if not isinstance(error, process.AgentError) or not isinstance(blocked, dict):
        return error
    name = _name(pid, blocked)
    if name:
        blocked["name"] = name
        error.detail = _words(blocked, readable_name(name), duration(1000 * blocked["since_ms"])) or error.detail
    return _with_advice(error, blocked)


def _words(blocked: process.Json, what: str, since: str) -> str:
    """Who is in the way; "" if it is not for the code that is running."""
    thread = f"thread {blocked['tid']} ({blocked['thread']})"
    coroutine = f"the coroutine on the stack at {blocked.get('stack', 0):#x}"
    return {"code": f"{thread} has been in {what} for {since}",
            "stale": f"the stack of {thread} has held an address in {what} for {since}, and cannot be unwound to its end to tell "
                     "whether it is a call",
            "coroutine": f"{coroutine} has been in {what} for {since}",
            "coroutine-stale": f"{coroutine} has held an address in {what} for {since}, and it cannot be told whether it is a "
                               "call"}.get(blocked["obstacle"], "")


def _with_advice(error: process.AgentError, blocked: process.Json) -> Exception:
    advice = {"code": "a function that never returns can only be patched with --when now (HOTPATCH_WHEN=now), with which calls "
                      "under way finish in the old code; else try again when it has returned",
              "coroutine": "try again when it has gone on and returned; or patch with --when now (HOTPATCH_WHEN=now), with which "
                           "it finishes in the old code",
              "elsewhere": "let it call hotreload_safepoint(), or declare where it sleeps, or patch with --when quiescent"}
    said = advice.get(blocked["obstacle"], "try again later, or patch with --when now (HOTPATCH_WHEN=now), with which no "
                                           "thread is stopped or looked at")
    error.detail = f"{error.detail}; nothing was changed; {said}"
    error.args = (f"{error.message}: {error.detail}",)
    return error


def _name(pid: int, blocked: process.Json) -> str | None:
    """The function that the address lies in; None if the process ended or its files have no symbols."""
    if "build_id" not in blocked:
        return None
    address = blocked.get("function") or blocked["address"]
    try:
        image = next(i for i in process.status(pid, _STATUS_SECONDS).images if i.build_id == blocked["build_id"])
        path = _file_at(pid, image.load_bias + address)
    except (HotreloadError, OSError, ValueError, StopIteration):
        return None
    return function_at(path, address)


def function_at(path: Path | None, address: int) -> str | None:
    """The function of an image or payload at an image-relative address; None if the file is gone or has no symbols."""
    try:
        symbols = elf.read(path).symbols if path else []
    except (HotreloadError, OSError, ValueError):
        return None
    found = [s for s in symbols if s.defined and s.type == elf.STT_FUNC and s.value <= address < s.value + max(s.size, 1)]
    exact = sorted(found, key=lambda s: (not s.name.endswith((_NEW_SUFFIX, BODY_SUFFIX)), s.size))
    return exact[0].name.removesuffix(_NEW_SUFFIX).removesuffix(BODY_SUFFIX) if exact else None


def _file_at(pid: int, address: int) -> Path | None:
    """The file mapped at an address of a process (proc(5): maps). A program's own file may be gone or replaced: exe has it.
    Payloads are mapped from copies in memory that bear the names of their files (memfd_create(2))."""
    for line in Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").splitlines():
        words = line.split(None, 5)
        start, end = (int(word, 16) for word in words[0].split("-"))
        if start <= address < end and len(words) == 6 and words[5].startswith("/"):
            exe = Path(f"/proc/{pid}/exe")
            return exe if str(exe.readlink()) == words[5] else Path(words[5].removeprefix("/memfd:").removesuffix(" (deleted)"))
    return None
