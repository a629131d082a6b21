"""The real machinery without a build tool: from objects to a generation, and into a process."""
from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import builds
from builds import run_tool

from hotreload_tool import abi, bundle, hotpatch, instrument, process
from hotreload_tool.baseline import Store
from hotreload_tool.errors import Refusal, Refused
from hotreload_tool.objectmaps import ObjectMaps
from hotreload_tool.request import ImageKind, ImageRequest, LinkRequest, ObjectRequest
from livetools import Program as Process

_APPLY_SECONDS = 30.0
AGENT_REFUSES = "agent"          # stands for the refusal code where the agent in the process refuses


class NotLive(Exception):
    """The agent took a patch, but not all of its functions are live."""


class Patcher:
    """Makes generations of one image and hands them to processes."""

    def __init__(self, image: Path, stack: ExitStack) -> None:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hr-")))
        sockets.chmod(0o700)
        os.environ["HOTRELOAD_RUNTIME_DIR"] = str(sockets)
        self._environment = {**os.environ, "LC_ALL": "C"}
        self._stack = stack
        self.store = Store(image.parent / ".hotreload")
        self.build_id = self.store.file_image(image, "program")

    def start(self, program: Path) -> Process:
        """A running program that said "ready"; ends with the stack."""
        started = self._stack.enter_context(Process([program], cwd=program.parent, env=self._environment))
        started.expect(r"^ready\n")
        return started

    def patch(self, pid: int, request: ImageRequest) -> list[str] | None:
        """Patch the process; unique names of the variables that the patch brought, None if nothing changed. Raises Refused
        (also for what the agent does not support), NotLive, HotreloadError."""
        made = hotpatch.make_generation(self.store, self.build_id, request, ObjectMaps(self.store, request.objects))
        if made is None:
            return None
        try:
            return self.apply(pid, made)
        except process.AgentError as e:
            self.store.withdraw(self.build_id, made)
            if e.code is not abi.Code["UNSUPPORTED"]:
                raise
            raise Refused([Refusal(AGENT_REFUSES, "", "", str(e), "see there")]) from e

    def apply(self, pid: int, made: Path) -> list[str]:
        """As `patch`, of a generation that is there."""
        patch = bundle.read(made).image(self.build_id)
        assert patch is not None
        answer = process.apply(pid, [self.store.payload(patch[1])], when="now", timeout=_APPLY_SECONDS)
        mine = next(i for i in answer.images if i.build_id == self.build_id)
        if mine.functions_live != mine.functions_changed or mine.functions_changed != len(patch[0]["changed"]):
            raise NotLive(f"{mine.functions_live} of {mine.functions_changed} changed functions are live")
        return [str(record["name"]) for record in patch[0]["data"]["added"]]


class Live:
    """A program of a few source files, any language, built and running.

    `compilers`: suffix -> command and flags, to which `-c SOURCE -o OBJECT` is added. `linker`: command and flags. With `host`,
    the files become a shared library, and that text a program that is linked with it.
    """

    def __init__(self, stack: ExitStack, runtime: Path, files: Mapping[str, str], compilers: Mapping[str, Sequence[str]],
                 linker: Sequence[str], libraries: Sequence[str] = (), host: str = "") -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="live-")))
        self._compilers, self._linker, self._files = compilers, linker, dict(files)
        self._kind: ImageKind = "shared" if host else "program"
        self._compile(files)
        objects, archive = builds.runtime_objects(runtime)
        self._image = self.folder / ("libprogram.so" if host else "program")
        run_tool([*linker, *(["-shared"] if host else []), *self._objects(), *objects, "-o", self._image, *libraries,
                  "-Wl,--build-id=sha1", archive, "-lpthread", "-ldl"])
        self._patcher = Patcher(self._image, stack)
        self.process = self._patcher.start(self._host(host) if host else self._image)

    def _host(self, text: str) -> Path:
        source = self.folder / "host.c"
        source.write_text(text)
        target = self.folder / "host"
        run_tool([*self._compilers[".c"], source, "-o", target, f"-L{self.folder}", "-lprogram", f"-Wl,-rpath,{self.folder}"])
        return target

    def _objects(self) -> list[Path]:
        return [self.folder / f"{Path(name).stem}.o" for name in self._files]

    def _compile(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            source = self.folder / name
            source.write_text(text)
            target = source.with_suffix(".o")
            run_tool([*self._compilers[source.suffix], "-c", source, "-o", target], cwd=self.folder)
            instrument.instrument_file(target, object_name=target.name)

    def ask(self, line: str) -> str:
        """The program's answer to one line."""
        self.process.send(line + "\n")
        return self.process.expect(r"[^\n]*\n")[0].rstrip("\n")

    def patch(self, **changes: tuple[str, str]) -> bool:
        """Replace text in files (`a_c=(old, new)` in a.c), compile them, and patch the process. Raises Refused."""
        new = {}
        for key, (old, text) in changes.items():
            name = ".".join(key.rsplit("_", 1))
            assert self._files[name].count(old) == 1, f"{old!r} is not in {name} once"
            new[name] = self._files[name] = self._files[name].replace(old, text)
        self._compile(new)
        command = [self._linker[0]]
        link = LinkRequest(driver=command, cc=command, cxx=command, libs=[], libpath=[], flags=[], sources=[])
        objects = [ObjectRequest(o.name, str(o), False) for o in self._objects()]
        request = ImageRequest("program", str(self._image), self._kind, objects, link)
        return self._patcher.patch(self.process.pid, request) is not None
