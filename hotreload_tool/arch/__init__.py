"""CPU facts as tables, one module per CPU. `for_machine` picks by e_machine."""
from __future__ import annotations

from types import ModuleType

from . import x86_64

NATIVE: ModuleType = x86_64      # the CPU that the compilers we call, the runtime and all images that are taken are for
_BY_MACHINE: dict[int, ModuleType] = {x86_64.EM: x86_64}


def for_machine(machine: int) -> ModuleType | None:
    """The tables of the CPU with ELF machine number `machine`, None if it is not supported."""
    return _BY_MACHINE.get(machine)
