"""New objects that code initialises, in running programs: what their constructors and destructors do, and when.

That they are there, once, the cases `cc-new-object…` show; here is what those cannot say.
"""
from __future__ import annotations

import os
from pathlib import Path

import pytest
from benchtools import ANSWER, BEFORE, COUNTED, Bench

from hotreload_tool import bundle, process


def test_constructed_once_and_destroyed_at_the_end_in_reverse_order(bench: Bench) -> None:
    with bench.process() as child, bench.process() as untouched:
        two = bench.make(BEFORE + COUNTED + 'static Counted one("one"), two("two");' + ANSWER % ("", 2))
        bench.apply(child, two)
        child.ask("a", r"made one\nmade two\n(.*\n)*version 2 a\n", reject="destroyed")
        three = bench.make(BEFORE + COUNTED + 'static Counted one("one"), two("two");' + ANSWER % ("", 3))
        bench.apply(child, three)
        child.ask("b", r"version 3 b\n", reject="made")
        assert child.finish() == 0
        assert child.transcript.endswith("destroyed two\ndestroyed one\n") and child.transcript.count("destroyed") == 2
        assert child.transcript.count("made") == 2
        assert untouched.finish() == 0 and "made" not in untouched.transcript and "destroyed" not in untouched.transcript


def test_a_process_that_takes_several_generations_constructs_each_object_once(bench: Bench) -> None:
    with bench.process() as child:
        steps = [bench.make(BEFORE + COUNTED + 'static Counted one("one");' + ANSWER % ("", 2)),
                 bench.make(BEFORE + COUNTED + 'static Counted one("one");' + ANSWER % ("say(one.name);", 3))]
        for step in steps:
            bench.apply(child, step)
        child.ask("x", r"made one\n(.*\n)*one\nversion 3 x\n", reject="destroyed")
        assert child.finish() == 0 and child.transcript.count("made") == child.transcript.count("destroyed") == 1


def test_reverted_and_applied_again_it_is_not_made_again(bench: Bench) -> None:
    with bench.process() as child:
        made = bench.make(BEFORE + COUNTED + 'static Counted one("one");' + ANSWER % ("one.name += '+';", 2))
        bench.apply(child, made)
        child.ask("a", r"made one\n(.*\n)*version 2 a\n")
        process.revert(child.pid, bench.build_id, 0)
        child.ask("b", r"version 1 b\n", reject="destroyed")
        bench.apply(child, made)
        child.ask("c", r"version 2 c\n", reject="made|destroyed")
        assert child.finish() == 0 and child.transcript.endswith("destroyed one++\n")
        assert child.transcript.count("made") == 1


THROWS = 'struct Fails { NOINLINE Fails() { %s } }; static Fails fails;'


@pytest.mark.parametrize("statement, said", [
    ('throw std::runtime_error("no such thing: " + std::string(setting("HOME")).substr(0, 0) + "door");', "no such thing: door"),
    ("throw 42;", "exception: i"),
], ids=["what", "type"])
def test_a_constructor_that_throws_refuses_the_patch(bench: Bench, statement: str, said: str) -> None:
    with bench.process() as child:
        before = process.status(child.pid).images[0]
        bad = bench.make(BEFORE + COUNTED + 'static Counted one("one");' + THROWS % statement + ANSWER % ("", 2))
        with pytest.raises(process.AgentError, match=said) as caught:
            bench.apply(child, bad)
        assert caught.value.code.name == "INITIALISER"
        status = process.status(child.pid).images[0]
        assert (status.generation, status.id, status.payloads) == (before.generation, before.id, before.payloads)
        child.ask("a", r"version 1 a\n", reject="version 2")
        bench.store.withdraw(bench.build_id, bad)
        good = bench.make(BEFORE + COUNTED + 'static Counted other("other");' + ANSWER % ("", 2), status.arena_used_end)
        bench.apply(child, good)
        child.ask("b", r"version 2 b\n")
        assert child.finish() == 0
        assert child.transcript.endswith("destroyed other\ndestroyed one\n"), "what was made before the failure is destroyed too"


def test_a_constructor_that_hangs_is_given_up_and_the_program_goes_on(bench: Bench) -> None:
    hangs = "static std::mutex never; struct Hangs { NOINLINE Hangs() { never.lock(); never.lock(); } }; static Hangs hangs;"
    with bench.process() as child:
        made = bench.make(BEFORE + hangs + ANSWER % ("", 2))
        with pytest.raises(process.AgentError, match="did not return in time"):
            bench.apply(child, made, timeout=1.0)
        child.ask("a", r"version 1 a\n", reject="version 2")
        status = process.status(child.pid).images[0]
        assert status.generation == 0
        bench.store.withdraw(bench.build_id, made)
        good = bench.make(BEFORE + COUNTED + 'static Counted one("one");' + ANSWER % ("", 2), status.arena_used_end)
        bench.apply(child, good)
        child.ask("b", r"version 2 b\n")


def test_what_a_constructor_opens_and_starts_is_the_programs(bench: Bench, tmp_path: Path) -> None:
    """The agent has descriptors of its own and all signals blocked: neither may get into the program's objects."""
    log = tmp_path / "log"
    source = r"""
#include <fstream>
#include <signal.h>
struct Log {
  std::ofstream file;
  std::thread thread;
  sigset_t blocked;
  NOINLINE Log() : file("PATH"), thread([this] { pthread_sigmask(SIG_SETMASK, nullptr, &blocked); }) {}
  NOINLINE void write(const char *line) { if (thread.joinable()) thread.join(); file << line << std::endl; }
};
static Log log_file;
""".replace("PATH", str(log))
    use = 'log_file.write(line); say(sigismember(&log_file.blocked, SIGTERM) ? "blocked" : "open");'
    with bench.process() as child:
        bench.apply(child, bench.make(BEFORE + source + ANSWER % (use, 2)))
        child.ask("first line", r"open\nversion 2 first line\n", reject="blocked")
        assert log.read_text() == "first line\n"
        targets = [os.readlink(f"/proc/{child.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{child.pid}/fd")]
        assert str(log) in targets


def test_a_dry_run_constructs_nothing(bench: Bench) -> None:
    with bench.process() as child:
        made = bench.make(BEFORE + COUNTED + 'static Counted one("one");' + ANSWER % ("", 2))
        patch = bundle.read(made).image(bench.build_id)
        assert patch is not None
        process.apply(child.pid, [bench.store.payload(patch[1])], dry_run=True, timeout=60.0)
        child.ask("a", r"version 1 a\n", reject="made")
        bench.apply(child, made)
        child.ask("b", r"version 2 b\n")
        assert child.transcript.count("made") == 1
