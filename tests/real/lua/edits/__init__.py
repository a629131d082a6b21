"""Small edits to Lua's source, each visible from a Lua script, in the order in which one process takes them."""
from __future__ import annotations

from .core import CORE
from .library import LIBRARY
from .later import LATER
from .model import Check, Edit, Replacement

CHAIN: list[Edit] = [*LIBRARY, *CORE, *LATER]

__all__ = ["CHAIN", "Check", "Edit", "Replacement"]
