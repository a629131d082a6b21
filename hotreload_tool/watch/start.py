"""How a session begins, and begins again: in the same process, which reads everything anew.

A script with a mistake in it must not end a session. So a process that was started again waits for the next save when
SCons ends before it comes to watching.
"""
from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from .. import timings
from . import reading

_AGAIN = "HOTRELOAD_WATCH_AGAIN"       # in the environment of a session that was started again: what it is to watch
_watched: list[bool] = []              # whether this process came so far
_wake: list[int] = []


def prepare() -> None:
    """While SConscripts are read, on the main thread: note what they read, and let signals write to a pipe."""
    reading.start()
    if not _wake:
        readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _wake.append(readable)
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)


def watch(request: Any, objects: list[Any], n_jobs: int, prefixes: str) -> None:
    """Watch until a signal ends it, or start this process again."""
    import SCons.SConsign

    from ..errors import HotreloadError
    try:
        from .graph import Graph
        from .session import Restart, Session, on_main_thread
    except ModuleNotFoundError as e:
        raise HotreloadError(f"the Python package {e.name!r} is missing; `{sys.executable} -m pip install "
                             "scons-hotreload` installs what the tool needs") from e
    reading.stop()
    _watched.append(True)
    sconsign = f"{SCons.SConsign.DB_Name or SCons.SConsign.current_sconsign_filename()}.dblite"
    session = Session(request.top, request, Graph(objects, n_jobs), _wake[0] if _wake else None,
                      timed=timings.chosen(), prefixes=prefixes, sconsign=os.path.join(request.top, sconsign))
    try:
        on_main_thread(session.run)
    except Restart as e:
        session.screen.line(f"{e}; reading everything again", "bold")
        again(sorted(reading.scripts(request.top)))


def again(scripts: list[str]) -> None:
    """Become a new process of the same command, which has this process's number."""
    import SCons.Script
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    scons = os.path.dirname(os.path.dirname(os.path.abspath(SCons.__file__)))
    code = f"import sys; sys.path[:1] = {[package]!r}; sys.path.append({scons!r}); " \
           "from hotreload_tool.watch.start import resume; resume()"
    os.environ[_AGAIN] = json.dumps(scripts)
    os.chdir(SCons.Script.GetLaunchDir())
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-c", code, *sys.argv[1:]])


def resume() -> None:
    """What a process does that was started again."""
    scripts = json.loads(os.environ.pop(_AGAIN, "[]"))
    directory, begun = os.getcwd(), time.time_ns()
    prepare()
    import SCons.Script
    sys.argv[0] = "scons"
    try:
        SCons.Script.main()
    except SystemExit as e:
        if _watched or not e.code:
            raise
    _wait_for_a_mistake_to_be_mended(scripts, begun)
    os.chdir(directory)
    again(scripts)


def _wait_for_a_mistake_to_be_mended(scripts: list[str], begun: int) -> None:
    """`begun`: when the scripts were about to be read, as time.time_ns() tells it."""
    from .saves import Saves, changed_since
    saves = Saves(_wake[0])
    known = {*scripts, *reading.files}
    for folder in {os.path.dirname(path) for path in scripts}:
        saves.follow(folder)
    print("the build cannot be read; waiting for the next save", flush=True)
    if changed_since(scripts, begun):
        return
    while True:
        changed = saves.wait()
        if changed & known:
            return
        if not changed:            # a signal
            sys.exit(0)


def first() -> None:
    """`hotpatch watch`: SCons in this process, with sys.argv."""
    prepare()
    import SCons.Script
    SCons.Script.main()
