"""Clients that do everything wrong, against a live agent under the sanitizers: some each time, many with
HOTRELOAD_TEST_SIZE=full. See docs/fuzzing.md."""
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import Harmed, Hostile, good

from hotreload_tool import abi, process
from livetools import runtime_directory

DRIVER = Path(__file__).with_name("fuzz.py")


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_clients_that_do_everything_wrong(full_size: bool, tmp_path: Path) -> None:
    executions = 50_000 if full_size else 500
    figures = tmp_path / "figures.json"
    done = subprocess.run([sys.executable, DRIVER, "--target", "socket", "--executions", str(executions), "--json", figures],
                          capture_output=True, text=True, timeout=7000)
    assert done.returncode == 0, done.stdout + done.stderr
    result, = json.loads(figures.read_text())
    assert result["executions"] == executions
    assert {"OK", "ALREADY", "BAD_REQUEST", "ABI_MISMATCH", "BAD_PAYLOAD", "left", "no answer"} <= result["answers"].keys()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    with pytest.MonkeyPatch.context() as patch, runtime_directory() as sockets:
        patch.setenv("HOTRELOAD_RUNTIME_DIR", str(sockets))
        with Hostile(tmp_path_factory.mktemp("hostile")) as made:
            yield made


STATUS, APPLY = abi.pack_request(abi.Op.STATUS).hex(), abi.pack_request(abi.Op.APPLY, 1, dry_run=True).hex()
TOGETHER = abi.pack_request(abi.Op.APPLY, 1, together=True, timeout_ms=3_600_000).hex()


@pytest.mark.parametrize("steps, answer", [
    ([["send", STATUS, []], ["send", "00" * 4096, []]], "OK"),
    ([["send", STATUS[:2 * n + 2][2 * n:], []] for n in range(abi.REQUEST.size)], "OK"),
    ([["send", APPLY, ["good"] * 66]], "BAD_REQUEST"),
    ([["send", APPLY, ["socket", "pipe", "null"] * 84]], "BAD_REQUEST"),
    ([["send", APPLY[:2], ["good"]], ["send", APPLY[2:], []]], "OK"),
    ([["send", APPLY[:2], ["pipe"]], ["send", APPLY[2:], ["good"]]], "BAD_REQUEST"),
    ([["send", APPLY, ["pipe"]]], "BAD_PAYLOAD"),
    ([["send", APPLY, ["path"]]], "BAD_PAYLOAD"),
    ([["send", APPLY, ["write-only"]]], "BAD_PAYLOAD"),
    ([["send", APPLY, ["huge"]]], "BAD_PAYLOAD"),
    ([["send", APPLY, ["good"]], ["read", 1], ["end"]], "left"),
    ([["send", APPLY[:40], ["good"] * 60], ["end"]], "left"),
    ([["send", TOGETHER, ["good", "ballot 2 0"]], ["end"]], "left"),
    ([["send", TOGETHER, ["good", "unsealed"]]], "BAD_REQUEST"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_one_client(hostile: Hostile, steps: list[list[object]], answer: str) -> None:
    """And the next one is answered, by a process that is what it was."""
    hostile.done, hostile.patience = -1, 59      # looks at all that could be left behind
    said = hostile.run(steps)
    if said == "no answer" and len(steps) > 1 and answer != "left":
        pytest.skip("a machine so busy that the request was not there in time")
    assert said == answer


def test_a_harmed_process_is_told(hostile: Hostile) -> None:
    """The driver itself: what is left behind, a process that does something else, and one that is gone."""
    before, hostile.before, hostile.done = hostile.before, (0, 0), -1
    with pytest.raises(Harmed, match="threads and descriptors"):
        hostile.run(good(hostile.image.build_id)[0])
    hostile.before = before
    process.apply(hostile.program.pid, [hostile.payload.path])
    hostile.program.ask("value", r"^value 77\n")
    hostile.program.kill()
    with pytest.raises((Harmed, ConnectionError)):
        hostile.run(good(hostile.image.build_id)[0])
