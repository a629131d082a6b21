"""hotreload: running programs take an edit. The SCons tool and what `scons hotpatch` does.

    import hotreload_tool
    env.Tool(hotreload_tool.generate)
"""
from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "exists", "generate"]


def generate(env: Any, **kw: Any) -> None:
    """Add the tool to an SCons construction environment; `kw` sets HOTRELOAD_ variables that `env` does not."""
    from . import scons_tool
    scons_tool.generate(env, **kw)


def exists(env: Any) -> bool:
    """Whether the tool can work in `env`: a compiler is there."""
    from . import scons_tool
    return scons_tool.exists(env)
