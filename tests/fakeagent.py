"""An agent that only talks: it answers requests of runtime/hotreload_abi.h in this process, and remembers them."""
from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from hotreload_tool import abi

Document = dict[str, Any]
_SECONDS = 30.0      # bound on each wait for a client


@dataclass
class Request:
    op: abi.Op
    dry_run: bool
    when: abi.When
    timeout_ms: int
    payloads: list[bytes]     # what the passed descriptors hold


Answer = Callable[[Request], tuple[str, Document]]    # -> name of the code, JSON


class FakeAgent:
    """Serves `PID.sock` of this very process in `directory`. `answer` says what each request gets."""

    def __init__(self, directory: Path, answer: Answer) -> None:
        self.requests: list[Request] = []
        self._answer = answer
        self._path = directory / f"{os.getpid()}.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> FakeAgent:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(_SECONDS)
        self._listener.close()
        self._path.unlink()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return        # shut down
            with client:
                client.settimeout(_SECONDS)
                self._serve_one(client)

    def _serve_one(self, client: socket.socket) -> None:
        head, descriptors, _, _ = socket.recv_fds(client, abi.REQUEST.size, abi.MAX_PAYLOADS)
        if len(head) != abi.REQUEST.size:
            return            # somebody who only looked whether we are there
        magic, version, op, flags, when, timeout_ms, n_payloads, _, _, _ = abi.REQUEST.unpack(head)
        assert (magic, version, n_payloads) == (abi.REQUEST_MAGIC, abi.ABI, len(descriptors))
        request = Request(abi.Op(op), bool(flags & abi.RequestFlags.DRY_RUN), abi.When(when), timeout_ms,
                          [_read(d) for d in descriptors])
        self.requests.append(request)
        code, document = self._answer(request)
        body = json.dumps(document).encode()
        client.sendall(abi.REPLY.pack(abi.REPLY_MAGIC, abi.ABI, abi.CODES[code].number, len(body)) + body)


def _read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()
