"""Each example: built, started, edited while it runs; it shows the new behaviour, not the old, its state intact."""
from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from livetools import REPLY_SECONDS, REPO, Program, Workspace, run, workspace

EXAMPLES = REPO / "examples"


@contextlib.contextmanager
def built(name: str, tmp_path: Path) -> Iterator[Workspace]:
    """A copy of example `name`, built."""
    with workspace(EXAMPLES / name, tmp_path / name) as work:
        work.scons()
        yield work


@pytest.mark.parametrize("command", [
    "gcc {flags} animation/src/main.c animation/src/effects.c",
    "g++ {flags} -std=c++17 -pthread server/src/main.cc server/src/routes.cc",
    "gcc {flags} plugin/src/host.c -ldl",
    "gcc {flags} -shared -fPIC plugin/src/plugin.c",
    "gcc {flags} -pthread search/src/main.c search/src/board.c",
    "gcc {flags} events/src/main.c events/src/handler.c",
], ids=["animation", "server", "host", "plugin", "search", "events"])
def test_compiles_without_a_warning(command: str, tmp_path: Path) -> None:
    flags = f"-O2 -Wall -Wextra -Werror -I{REPO / 'runtime'} -o {tmp_path / 'out'}"
    run(command.format(flags=flags).split(), cwd=EXAMPLES, code=0)


def test_animation(tmp_path: Path) -> None:
    with built("animation", tmp_path) as project, project.start(["build/animation", "--plain", "100000"]) as animation:
        before = animation.expect(r"^frame (\d+) score ([1-9]\d*) \[.*\|.*\] a small fountain, (\d+) sent up\n")
        project.edit("src/effects.c", "a small fountain", "a big fountain")
        project.edit("src/effects.c", "'|' : '.'", "'A' : 'v'")
        project.scons("hotpatch")
        animation.expect(r"a big fountain, \d+ sent up\n")
        after = animation.expect(r"^frame (\d+) score (\d+) \[.*A.*\] a big fountain, (\d+) sent up\n",
                                 reject=r"small|\[.*[|.].*\]")
        assert all(int(new) >= int(old) for old, new in zip(before.groups(), after.groups()))
        frames = [int(n) for n in re.findall(r"^frame (\d+) ", animation.transcript, re.MULTILINE)]
        assert frames == list(range(1, len(frames) + 1)), "a frame was skipped or counted twice"
        assert animation.finish() == 0


def test_animation_takes_a_second_edit_on_top_of_the_first(tmp_path: Path) -> None:
    with built("animation", tmp_path) as project, project.start(["build/animation", "--plain", "100000"]) as animation:
        animation.expect(r"score [1-9]\d* .* a small fountain")
        project.edit("src/effects.c", "a small fountain", "a big fountain")
        project.scons("hotpatch")
        animation.expect("a big fountain")
        project.edit("src/effects.c", "a big fountain", "a grand fountain")
        project.edit("src/effects.c", "scene->score += 1;", "scene->score += 1000000;")
        project.scons("hotpatch")
        animation.expect("a grand fountain")
        score = animation.expect(r"score (\d{7,}) .* a grand fountain", reject="small|big").group(1)
        assert int(score) % 1000000 > 0, "the points of the old rule are gone"


def test_a_comment_changes_nothing(tmp_path: Path) -> None:
    with built("animation", tmp_path) as project, project.start(["build/animation", "--plain", "100000"]) as animation:
        animation.expect("a small fountain")
        project.edit("src/effects.c", "/* A particle that turns", "/* A particle which turns")
        assert "nothing changed" in project.scons("hotpatch").text
        assert project.status(animation)["images"][0]["generation"] == 0
        animation.skip_output()
        animation.expect("a small fountain")


class Client:
    """One connection to the server."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=REPLY_SECONDS)
        self.stream = self.socket.makefile("rw", encoding="utf-8", newline="\n")

    def ask(self, line: str) -> str:
        self.stream.write(line + "\n")
        self.stream.flush()
        return self.stream.readline().rstrip("\n")

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


def connect(server: Program) -> Client:
    return Client(int(server.expect(r"listening on 127\.0\.0\.1:(\d+)\n").group(1)))


def test_server(tmp_path: Path) -> None:
    with built("server", tmp_path) as project, project.start(["build/server"]) as server:
        client = connect(server)
        assert client.ask("GET /hello Ada") == "200 hello Ada"
        assert client.ask("GET /thread") == "200 this thread served 1"
        assert client.ask("GET /square 7") == "200 49"
        assert client.ask("GET /square x") == "400 square needs a number"
        assert client.ask("GET /count") == "200 connection 1 request 5 total 5"

        project.edit("src/routes.cc", '"hello "', '"good day, "')
        project.edit("src/routes.cc", "number * number)", "number * number) + \" exactly\"")
        project.edit("src/routes.cc", "square needs a number", "square wants a number")
        project.edit("src/routes.cc", "this thread served ", "served here: ")
        project.scons("hotpatch")

        assert client.ask("GET /hello Ada") == "200 good day, Ada"
        assert client.ask("GET /thread") == "200 served here: 2"
        assert client.ask("GET /square 7") == "200 49 exactly"
        assert client.ask("GET /square x") == "400 square wants a number"
        assert client.ask("GET /count") == "200 connection 1 request 10 total 10"
        second = Client(client.socket.getpeername()[1])
        assert second.ask("GET /hello") == "200 good day, world"
        assert second.ask("GET /count") == "200 connection 2 request 2 total 12"
        second.close()
        client.close()
        assert server.finish() == 0


def test_plugin(tmp_path: Path) -> None:
    with built("plugin", tmp_path) as project, project.start(["build/host"]) as host:
        host.expect("plugin loaded\n")
        host.ask("ab 12", r"^line 1: 5 characters, 2 letters so far\n")
        project.edit("src/plugin.c", "%ld letters so far", "%ld letters in all")
        project.edit("src/plugin.c", "isalpha((unsigned char)*line)", "isalnum((unsigned char)*line)")
        project.scons("hotpatch")
        host.ask("ab 12", r"^line 2: 5 characters, 6 letters in all\n", reject="so far")
        assert host.finish() == 0


def ask_until(search: Program, ways: int, other: int) -> int:
    """Ask until a board was finished with so many ways; how many boards there were. Others may have `other` ways before."""
    while True:
        said = search.ask("", r"^(\d+) boards, the last one with (\d+) ways\n")
        if int(said[2]) == ways:
            return int(said[1])
        assert int(said[2]) in (0, other), "a board was counted by two rules"


def test_search_returns_to_its_safepoints(tmp_path: Path) -> None:
    """All workers are deep in the function that changes, at all times; the patch goes in at once, and no board mixes rules."""
    with built("search", tmp_path) as project, project.start(["build/search"]) as search:
        search.expect("searching\n")
        before = ask_until(search, 92, 92)
        project.edit("src/board.c", "columns == 0 ||\n         abs(columns) == rows;", "columns == 0 || (rows < 0);")
        said = project.scons("hotpatch", "HOTPATCH_WHEN=safepoint").out
        assert "3 threads stopped" in said, said
        between = ask_until(search, 40320, 92)
        assert between >= before
        ask_until(search, 40320, 40320)
        project.edit("src/board.c", "columns == 0 || (rows < 0);", "columns == 0 || abs(columns) == rows;")
        project.scons("hotpatch", "HOTPATCH_WHEN=safepoint")
        assert ask_until(search, 92, 40320) >= between
        ask_until(search, 92, 92)
        assert search.finish() == 0


def test_events_takes_a_patch_while_its_loop_sleeps(tmp_path: Path) -> None:
    with built("events", tmp_path) as project, project.start(["build/events"]) as events:
        events.expect("waiting\n")
        events.ask("one", r"^line 1: one\n")
        assert project.status(events)["mode"] == "poll"
        assert len(list(Path(f"/proc/{events.pid}/task").iterdir())) == 1
        project.edit("src/handler.c", "line %ld: %s", "%ld. %s")
        project.scons("hotpatch")                      # nothing comes in meanwhile but the patch
        events.ask("two", r"^2\. two\n", reject="line")
        assert events.finish() == 0


def test_without_the_tool_it_is_a_plain_program(tmp_path: Path) -> None:
    with built("animation", tmp_path) as project:
        project.scons("-c")
        project.scons("HOTRELOAD=0")
        with project.start(["build/animation", "--plain", "3"]) as animation:
            assert animation.wait() == 0
            assert animation.transcript.count("frame ") == 3
        assert not list(Path(project.env["HOTRELOAD_RUNTIME_DIR"]).iterdir())
