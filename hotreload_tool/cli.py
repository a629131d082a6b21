"""The command line: `hotpatch VERB …`, also `python -m hotreload_tool VERB …`.

Exit codes: 0 done; 1 refused, nothing changed; 2 usage; 3 no such process or no agent in it; 4 deadline passed,
nothing changed; 5 bundle damaged or not for this image.
"""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from . import report
from .commands import USAGE, apply, attest, bundle, cc, diff, inspect, keygen, ps, revert, sign, status, verify, watch
from .errors import HotreloadError

COMMANDS = (ps, status, apply, revert, inspect, diff, verify, attest, keygen, sign, cc, bundle, watch)
INTERRUPTED = 130     # what shells report for a command ended by SIGINT


class _Parser(argparse.ArgumentParser):
    """Says usage errors as JSON too where `--json` was asked for, so that a script always finds one document."""
    as_json = False

    def error(self, message: str) -> NoReturn:
        if _Parser.as_json:
            print(json.dumps({"error": "USAGE", "message": message, "exit_code": USAGE}))
        super().error(message)


def parser() -> argparse.ArgumentParser:
    """The whole command line. Its parsed arguments carry the verb's module as `command`."""
    top = _Parser(prog="hotpatch", description="Patch running programs that were built with the hotreload tool.",
                  epilog="exit codes: 0 done, 1 refused and nothing changed, 2 usage, 3 no such process or no agent "
                         "in it, 4 deadline passed and nothing changed, 5 bundle damaged or not for this image")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
    for command in COMMANDS:
        verb = verbs.add_parser(command.NAME, help=command.HELP, description=command.__doc__)
        command.prepare(verb)
        verb.add_argument("--json", action="store_true", help="print exactly one JSON document on standard output")
        verb.set_defaults(command=command)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Usage errors leave through SystemExit(2), as argparse does it."""
    words: list[str] = list(sys.argv[1:] if argv is None else argv)
    _Parser.as_json = "--json" in words
    words, command = _split(words)
    args = parser().parse_args(words)
    args.live_command = command
    result = _run(args)
    report.show(result, args.json)
    return result.exit_code


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """What stands before and behind the `--` of `--live -- COMMAND`: argparse takes no command behind an option. Of `watch`,
    all that is not its own is for SCons."""
    if words[:1] == [watch.NAME]:
        own = next((at for at, word in enumerate(words) if at and word not in watch.OPTIONS), len(words))
        return words[:own], words[own + (words[own:own + 1] == ["--"]):]
    at = words.index("--live") + 1 if "--live" in words else len(words)
    return (words[:at], words[at + 1:]) if words[at:at + 1] == ["--"] else (words, [])


def _run(args: Any) -> report.Result:
    try:
        result: report.Result = args.command.run(args)
        return result
    except HotreloadError as e:
        return report.failure(e)
    except OSError as e:
        return report.failure(e)
    except KeyboardInterrupt:
        return report.Result({"error": "INTERRUPTED", "message": "interrupted", "exit_code": INTERRUPTED},
                             exit_code=INTERRUPTED)

