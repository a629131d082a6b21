"""Clients that do everything wrong, against a live agent built with AddressSanitizer and UndefinedBehaviorSanitizer.

One input is what one client does, a JSON list of steps:

    ["send", "hex", ["good", "pipe", …]]     bytes, with these descriptors
    ["shutdown"]                             no more will come
    ["read", bytes]                          as many bytes of the answer, no more
    ["end"]                                  close the connection; without it the whole answer is waited for

Afterwards the agent must answer the next one, the process must do what the generation does that it names, and have as many
threads, and the agent as many descriptors, as before.
"""
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from runtimetools import SANITIZE, SOURCES, Image, Payload, Recipe, build, make_payload, start

from hotreload_tool import abi, process
from livetools import Program

Steps = list[list[Any]]
FIELDS = ("magic", "abi", "op", "flags", "when", "timeout_ms", "n_payloads", "generation", "build_id", "guard_ms")
NUMBERS = (0, 1, 2, 3, 4, 7, 63, 64, 65, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)
KINDS = ("good", "good", "damaged", "empty", "null", "directory", "pipe", "socket", "path", "write-only", "unsealed",
         "ballot 1 0", "ballot 2 0", "ballot 0 0", "ballot 4095 4294967295", "huge")
_SECONDS = 60.0           # a bound, not an expectation: the machine may be busy
_STAGE = 2.0              # STAGE_MS of runtime/agent.c
_EACH = 20                # executions between looks at threads, descriptors and memory


class Harmed(AssertionError):
    """The process or its agent is not what it was."""


class Hostile:
    """A program under the sanitizers, and how to be its client. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.image: Image = build(folder, "hostile", [SOURCES / "target.c"], flags=SANITIZE, runtime_flags=tuple(SANITIZE),
                                  link=SANITIZE)
        self.payload: Payload = make_payload(folder, Recipe(self.image, "int value_new(void) { return 77; }",
                                                            {"value": "value_new"}))
        self.folder, self.done = folder, 0
        self.patience = 0.2      # seconds for which an answer is waited for that may take its time

    def __enter__(self) -> Hostile:
        # With what may be said without leaving anything behind: lists of what was lost are not lists of what was used wrongly.
        self.program: Program = start(self.image, ASAN_OPTIONS="detect_leaks=0:abort_on_error=0")
        self.before = self._resources()
        return self

    def __exit__(self, *_: object) -> None:
        self.program.kill()

    # ---- one client ---------------------------------------------------------------------------------------------

    def run(self, steps: Steps) -> str:
        """What the client was told: the name of a code, "no answer", or "left" if it did not stay. Raises Harmed."""
        self.done += 1
        with contextlib.ExitStack() as opened, socket.socket(socket.AF_UNIX) as link:
            link.settimeout(_SECONDS)
            link.connect(str(Path(os.environ["HOTRELOAD_RUNTIME_DIR"], f"{self.program.pid}.sock")))
            answer = self._play(link, steps, opened)
        self.check()
        return answer

    def _play(self, link: socket.socket, steps: Steps, opened: contextlib.ExitStack) -> str:
        sent = b""
        try:
            for step in steps:
                if step[0] == "send":
                    data = bytes.fromhex(step[1])
                    files = [self._open(kind, opened) for kind in step[2]]
                    socket.send_fds(link, [data], files) if files else link.sendall(data)
                    sent += data
                elif step[0] == "shutdown":
                    link.shutdown(socket.SHUT_WR)
                elif step[0] == "read":
                    link.settimeout(self.patience)
                    link.recv(step[1])
                else:
                    return "left"
            return self._answer(link, sent)
        except (BrokenPipeError, ConnectionResetError):
            return "no answer"                # the agent has its request, and leaves the rest unread
        except TimeoutError as e:
            if link.gettimeout() == _SECONDS:
                raise Harmed(f"no answer within {_SECONDS} s to {steps}") from e
            return "left"

    def _answer(self, link: socket.socket, sent: bytes) -> str:
        link.settimeout(self.patience if may_wait(sent) else _SECONDS)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while part := link.recv(1 << 16):
                said += part
        if not said:
            return "no answer"
        magic, version, code, length = abi.REPLY.unpack_from(said)
        if (magic, version, length) != (abi.REPLY_MAGIC, abi.ABI, len(said) - abi.REPLY.size):
            raise Harmed(f"an answer that is none: {said[:64]!r}, {len(said)} bytes")
        document = json.loads(said[abi.REPLY.size:])
        name = abi.Code(code).name
        if name not in ("OK", "ALREADY") and document["error"] != name:
            raise Harmed(f"code {name}, and says {document}")
        return name

    def _open(self, kind: str, opened: contextlib.ExitStack) -> int:
        """A descriptor of a kind, closed by `opened`."""
        name, *numbers = kind.split()
        if name in ("null", "directory", "path", "write-only", "good"):
            path, how = {"null": ("/dev/null", os.O_RDWR), "directory": ("/", os.O_RDONLY),
                         "path": (self.payload.path, os.O_PATH), "good": (self.payload.path, os.O_RDONLY),
                         "write-only": (self.folder / "written", os.O_WRONLY | os.O_CREAT)}[name]
            found = os.open(path, how)
        elif name == "pipe":
            found, other = os.pipe()
            opened.callback(os.close, other)
        elif name == "socket":
            found = socket.socket(socket.AF_UNIX).detach()
        else:
            found = self._memory(name, [int(n) for n in numbers])
        opened.callback(os.close, found)
        return found

    def _memory(self, name: str, numbers: Sequence[int]) -> int:
        found = os.memfd_create(name, os.MFD_ALLOW_SEALING)
        if name == "damaged":
            data = bytearray(self.payload.path.read_bytes())
            at = (numbers or [0])[0] % len(data)
            data[at] ^= 1 << at % 8
            os.write(found, data)
        elif name == "huge":
            os.truncate(found, 1 << 40)
        elif name in ("ballot", "unsealed"):
            members, state = numbers or (1, 0)
            os.write(found, abi.BALLOT.pack(abi.BALLOT_MAGIC, members, 0, state))
            if name == "ballot":
                fcntl.fcntl(found, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return found

    # ---- the process afterwards ---------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises Harmed if the process does not do what its status says, or holds more than before."""
        try:
            image, = self._status().images
            self.program.ask("value", r"^value 77\n" if image.generation else r"^value \d{3,}\n",
                             reject="ERROR|runtime error")
            if self.done % _EACH == 0 and self._grew(now := self._resources()):
                raise Harmed(f"threads and descriptors were {self.before}, and are {now}")
        except (AssertionError, process.NoAgent, process.AgentError) as e:
            raise Harmed(f"{e}\n{self.program.transcript[-4000:]}") from e

    def _status(self) -> process.ProcessStatus:
        """Agents hang up on a client that takes longer than _STAGE to ask; on a busy machine that may be this one."""
        while True:
            began = time.monotonic()
            try:
                return process.status(self.program.pid, timeout=_SECONDS)
            except process.NoAgent:
                if time.monotonic() - began < _STAGE or not self.program.alive:
                    raise

    def _resources(self) -> tuple[int, int]:
        """Threads, and descriptors of all."""
        self._status()                     # whatever was begun before is done
        tasks = list(Path(f"/proc/{self.program.pid}/task").iterdir())
        return len(tasks), sum(len(os.listdir(t / "fd")) for t in tasks)

    def _grew(self, now: tuple[int, int]) -> bool:
        """One descriptor more or less says nothing: the agent may not have hung up yet on who asked it last. What is left behind
        again and again is more than that soon."""
        return now[0] > self.before[0] or now[1] > self.before[1] + 1

    def finish(self) -> None:
        """The sound payload goes in, and the program ends well."""
        if self._status().images[0].generation == 0:
            process.apply(self.program.pid, [self.payload.path], timeout=_SECONDS)
        self.program.ask("value", r"^value 77\n")
        if self.program.finish() or "ERROR" in self.program.transcript:
            raise Harmed(self.program.transcript[-4000:])


def may_wait(sent: bytes) -> bool:
    """Whether an agent may take its time with these bytes: it waits for the rest, for a moment, or for others who vote."""
    if len(sent) < abi.REQUEST.size:
        return True
    fields = dict(zip(FIELDS, abi.REQUEST.unpack_from(sent)))
    return bool(fields["timeout_ms"] > 100 or fields["flags"] & abi.RequestFlags.TOGETHER)


# ---- what clients do --------------------------------------------------------------------------------------------


def good(build_id: bytes) -> list[Steps]:
    """Clients that do nothing wrong."""
    apply, dry = (abi.pack_request(abi.Op.APPLY, 1, dry_run=d, timeout_ms=50) for d in (False, True))
    return [[["send", abi.pack_request(abi.Op.STATUS).hex(), []]], [["send", dry.hex(), ["good"]]],
            [["send", apply.hex(), ["good"]]],
            [["send", abi.pack_request(abi.Op.REVERT, generation=0, build_id=build_id, timeout_ms=50).hex(), []]],
            [["send", abi.pack_request(abi.Op.APPLY, 1, timeout_ms=50, guard_ms=5).hex(), ["good"]]],
            [["send", abi.pack_request(abi.Op.APPLY, 1, together=True, timeout_ms=50).hex(), ["good", "ballot 1 0"]]]]


def script(random: Random, data: bytes) -> bytes:
    """A client's steps, changed in one to three places; often cut into pieces, often one that does not stay."""
    steps: Steps = json.loads(data)
    sends = [s for s in steps if s[0] == "send"]
    if not sends:
        return data
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        send = random.choice(sends)
        random.choice((_field, _field, _bit, _files, _files, _length))(random, send)
    if random.random() < 0.3:
        steps = [piece for s in steps for piece in (_in_pieces(random, s) if s[0] == "send" else [s])]
    if random.random() < 0.1:
        steps = steps + [s for s in steps if s[0] == "send"]
    steps, end = steps[:12], random.random()
    if end < 0.5:
        steps += [["shutdown"]] if end < 0.2 else [["end"]] if end < 0.4 else [["read", random.randrange(200)], ["end"]]
    return json.dumps(steps).encode()


def _field(random: Random, send: list[Any]) -> None:
    data = bytes.fromhex(send[1])
    if len(data) < abi.REQUEST.size:
        return _bit(random, send)
    fields = list(abi.REQUEST.unpack_from(data))
    at = random.randrange(len(fields))
    if FIELDS[at] == "build_id":
        fields[at] = random.choice((bytes(32), b"\xff" * 32, fields[at][:19] + b"\1" + bytes(12)))
    else:
        bits = 16 if FIELDS[at] in ("abi", "op") else 64 if FIELDS[at] in ("generation", "guard_ms") else 32
        fields[at] = random.choice(NUMBERS) & (1 << bits) - 1
    send[1] = (abi.REQUEST.pack(*fields) + data[abi.REQUEST.size:]).hex()


def _bit(random: Random, send: list[Any]) -> None:
    data = bytearray.fromhex(send[1])
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    send[1] = data.hex()


def _files(random: Random, send: list[Any]) -> None:
    """More, fewer or other descriptors; sometimes as many announced."""
    count = random.choice((0, 1, 2, 3, 64, 65, 66, 130, 253))
    kind = random.choice(KINDS)
    send[2] = [f"{k} {random.randrange(1 << 20)}" if k == "damaged" else k
               for k in (kind if random.random() < 0.5 else random.choice(KINDS) for _ in range(count))]
    data = bytearray.fromhex(send[1])
    if random.random() < 0.6 and len(data) >= abi.REQUEST.size:
        struct.pack_into("<I", data, 20, count)
        send[1] = data.hex()


def _length(random: Random, send: list[Any]) -> None:
    data = bytes.fromhex(send[1])
    send[1] = random.choice((data[:random.randrange(len(data) + 1)], data + bytes(random.choice((1, 72, 4096))), data * 2)).hex()


def _in_pieces(random: Random, send: list[Any]) -> Iterator[list[Any]]:
    data, files = bytes.fromhex(send[1]), list(send[2])
    while data:
        size = random.choice((1, 2, 8, 71, len(data)))
        some = random.randrange(len(files) + 1) if random.random() < 0.5 else len(files)
        yield ["send", data[:size].hex(), files[:some]]
        data, files = data[size:], files[some:]
