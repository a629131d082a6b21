"""The kind of stubs that this session's programs are built with: HOTRELOAD_TEST_STUBS=plt (the default) or entry."""
from __future__ import annotations

import os

KIND = os.environ.get("HOTRELOAD_TEST_STUBS", "plt")
ARGUMENTS = [] if KIND == "plt" else [f"HOTRELOAD_STUBS={KIND}"]            # for SCons
ENVIRONMENT = {} if KIND == "plt" else {"HOTRELOAD_STUBS": KIND}            # for `hotpatch cc`
