"""What `hotpatch` starts: the command line, or for `hotpatch cc` the launcher alone.

The launcher is started for every file of a build, so none of the other verbs is loaded for it.
"""
from __future__ import annotations

import sys


def main() -> int:
    """`cli.main` for all verbs."""
    if sys.argv[1:2] == ["cc"] and sys.argv[2:3] not in (["-h"], ["--help"]):
        from . import launcher
        return launcher.main(sys.argv[2:])
    from . import cli
    return cli.main()
