"""Small edits to Lua's source, each visible from a Lua script, in the order in which one process takes them."""
from __future__ import annotations

from .core import CORE
from .later import LATER
from .library import LIBRARY
from .model import Check, Edit, Replacement

CHAIN: list[Edit] = [*LIBRARY, *CORE, *LATER]

__all__ = ["CHAIN", "CORE", "LIBRARY", "Check", "Edit", "Replacement"]
