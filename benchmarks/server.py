"""Servers under load, patched all the time and left alone, in turn; a table in Markdown.

usage: python benchmarks/server.py [--seconds N] [--rounds N] [--every MS] [--document FILE]

Two servers: the example in C++ and memcached from the distribution's source package, each built with the tool. Four
connections send one request after another (benchmarks/load.c). While the server is `patched`, every 100 ms a function on the
way of each request changes, in turn to the edit and back, with `quiescent`. Every answer must be right.
"""
from __future__ import annotations

import argparse
import contextlib
import glob
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(REPO), *(str(REPO / "tests" / part) for part in (".", "live", "campaign", "real"))]

import document  # noqa: E402
from aptsource import package  # noqa: E402

from hotreload_tool import bundle, process  # noqa: E402
from livetools import Program, Workspace, edit, workspace  # noqa: E402

CONNECTIONS = 4       # as many as the example has threads, each of which serves one


@dataclass(frozen=True)
class Server:
    """What is built, edited and asked."""
    name: str
    project: Callable[[Path], Path]        # makes the project below a directory
    arguments: Callable[[Path], list[str]]    # of scons
    start: Callable[[Workspace], tuple[Program, int]]    # the program and its port
    edit: tuple[str, str, str]             # file, old text, new text
    request: str
    prefix: str                            # of every answer
    end: str


@dataclass
class Figures:
    """Of one kind of run, one value for each round."""
    throughput: list[float] = field(default_factory=list)     # requests per second
    p50: list[float] = field(default_factory=list)            # µs, as the next three
    p99: list[float] = field(default_factory=list)
    p999: list[float] = field(default_factory=list)
    longest: list[float] = field(default_factory=list)
    requests: int = 0
    failures: int = 0
    patches: int = 0
    refused: int = 0                        # patches that found no moment; they are tried again 100 ms later


_GET = "static inline void process_get_command(conn *c, token_t *tokens, size_t ntokens, bool return_cas, bool should_touch) {"


# ---- the servers -------------------------------------------------------------------------------------------------


def _start_example(place: Workspace) -> tuple[Program, int]:
    program = place.start(["build/server"])
    return program, int(program.expect(r"^listening on 127\.0\.0\.1:(\d+)\n")[1])


def _start_memcached(place: Workspace) -> tuple[Program, int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    user = os.environ.get("USER", "root")
    program = place.start(["build/memcached", "-u", user, "-l", "127.0.0.1", "-p", str(port), "-U", "0"])
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 60) as link:
            link.sendall(b"set key 0 0 5\r\nvalue\r\n")
            assert link.recv(64) == b"STORED\r\n"
            return program, port
    raise SystemExit("memcached does not answer")


def _example(folder: Path) -> Path:
    return REPO / "examples" / "server"


def _memcached(folder: Path) -> Path:
    """The project of benchmarks/memcached with the package's sources, configured, and libevent's headers beside it."""
    project = folder / "memcached-project"
    (project / "src").mkdir(parents=True)
    (project / "SConstruct").write_text((HERE / "memcached" / "SConstruct").read_text())
    archive, = package("memcached").glob("memcached_*.orig.tar.*")
    subprocess.run(["tar", "xf", archive, "-C", project / "src", "--strip-components=1"], check=True, timeout=300)
    event = _libevent(folder)
    subprocess.run(["./configure", f"--with-libevent={event}"], cwd=project / "src", check=True, stdout=subprocess.DEVNULL,
                   timeout=900)
    return project


def _libevent(folder: Path) -> Path:
    """A prefix with the machine's libevent, headers and library. Raises SystemExit where it is not installed."""
    if Path("/usr/include/event.h").exists():
        target = folder / "libevent"
        target.mkdir(exist_ok=True)
        for name, there in (("include", "/usr/include"), ("lib", os.path.dirname(_library("libevent.so")))):
            (target / name).symlink_to(there)
        return target
    raise SystemExit("memcached needs libevent's headers: apt-get install libevent-dev")


def _library(name: str) -> str:
    found = sorted(glob.glob(f"/usr/lib/*/{name}") + glob.glob(f"/usr/lib/{name}"))
    if not found:
        raise SystemExit(f"there is no {name} on this machine")
    return found[0]


SERVERS = [
    Server("examples/server (C++, 4 threads)", _example, lambda folder: [], _start_example,
           ("src/routes.cc", 'return "hello "', 'return "good day "'), "GET /hello Ada\n", "200 ", "\n"),
    Server("memcached (C, 4 workers)", _memcached, lambda folder: [f"EVENT={folder / 'libevent'}"], _start_memcached,
           ("src/proto_text.c", _GET, _GET + "\n    if (ntokens > 1000) return;\n"), "get key\r\n", "VALUE key 0 5\r\nvalue",
           "END\r\n"),
]


# ---- measuring ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _patched(pid: int, made: Path, every: float, figures: Figures) -> Iterator[None]:
    """While it is entered: to the edit and back, again and again."""
    opened = bundle.read(made)
    image, = opened.manifest["images"]
    over = threading.Event()

    def patch() -> None:
        with tempfile.TemporaryDirectory() as folder:
            payload = Path(folder) / "payload.so"
            payload.write_bytes(opened.payloads[0])
            forward = True
            while not over.wait(every):
                try:
                    if forward:
                        result = process.apply(pid, [payload], when="quiescent", timeout=10)
                    else:
                        result = process.revert(pid, image["build_id"], 0, when="quiescent", timeout=10)
                except process.AgentError:
                    figures.refused += 1
                    continue
                assert result.images[0].functions_live == result.images[0].functions_changed
                figures.patches += 1
                forward = not forward
            if not forward:
                process.revert(pid, image["build_id"], 0, when="quiescent", timeout=60)

    thread = threading.Thread(target=patch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _load(tool: Path, port: int, server: Server, seconds: float, figures: Figures) -> None:
    done = subprocess.run([tool, str(port), str(CONNECTIONS), str(seconds), server.request, server.prefix, server.end],
                          check=True, capture_output=True, text=True, timeout=seconds + 120)
    requests, failures, took, *latencies = map(float, done.stdout.split())
    figures.requests += int(requests)
    figures.failures += int(failures)
    figures.throughput.append(requests / took)
    for values, value in zip((figures.p50, figures.p99, figures.p999, figures.longest), latencies, strict=True):
        values.append(value)


def measure(server: Server, folder: Path, tool: Path, options: argparse.Namespace) -> dict[str, Figures]:
    figures = {"unpatched": Figures(), "patched": Figures()}
    project = server.project(folder)
    with workspace(project, folder / re.sub(r"\W+", "-", server.name)) as place:
        os.environ["HOTRELOAD_RUNTIME_DIR"] = place.env["HOTRELOAD_RUNTIME_DIR"]
        arguments = server.arguments(folder)
        place.scons(*arguments, timeout=1800)
        program, port = server.start(place)
        with program:
            name, old, new = server.edit
            edit(place.path / name, old, new)
            place.scons(*arguments, "hotpatch", "HOTPATCH_APPLY=0")
            made, = place.path.rglob("*.hotpatch")
            for _ in range(options.rounds):
                _load(tool, port, server, options.seconds, figures["unpatched"])
                with _patched(program.pid, made, options.every / 1000, figures["patched"]):
                    _load(tool, port, server, options.seconds, figures["patched"])
    return figures


def table(results: dict[str, dict[str, Figures]]) -> list[str]:
    heads = ("server", "run", "patches", "not yet", "requests", "failed", "requests/s", "p50", "p99", "p99.9", "longest")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, kinds in results.items():
        for kind, f in kinds.items():
            medians = [f"{statistics.median(values):.0f}" for values in (f.throughput, f.p50, f.p99, f.p999, f.longest)]
            lines.append("| " + " | ".join([name, kind, str(f.patches), str(f.refused), str(f.requests), str(f.failures),
                                            *medians]) + " |")
        ratio = statistics.median(p / u for p, u in zip(kinds["patched"].throughput, kinds["unpatched"].throughput, strict=True))
        tail = statistics.median(p / u for p, u in zip(kinds["patched"].p99, kinds["unpatched"].p99, strict=True))
        lines.append(f"| | patched : unpatched | | | | | {ratio:.3f} | | {tail:.2f} | | |")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of one run")
    parser.add_argument("--rounds", type=int, default=6, help="runs of each kind")
    parser.add_argument("--every", type=float, default=100, metavar="MS", help="time between patches")
    parser.add_argument("--document", type=Path, help="put the table into this file")
    options = parser.parse_args(argv)
    results: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tool = Path(folder) / "load"
        subprocess.run(["gcc", "-O2", "-pthread", HERE / "load.c", "-o", tool], check=True)
        for server in SERVERS:
            results[server.name] = measure(server, Path(folder), tool, options)
    lines = [f"{os.cpu_count()} CPUs, Linux {platform.release()}; {options.rounds} rounds of {options.seconds:g} s of each kind; "
             f"latencies in µs, medians over rounds", "", *table(results)]
    print("\n".join(lines))
    if options.document:
        document.replace(options.document, "server", "\n".join(lines) + "\n")
    return 1 if any(f.failures for kinds in results.values() for f in kinds.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
