"""Runs programs of `program.py` in Python: what a process does, and what a patched process must do from then on.

`Machine.adopt` is the promise of a patch: the new code with the state as it was. Variables that live on keep their values
(an initial value that changed is merged with them), new ones start with their initial value, and so on.
"""
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from program import TMPS, TYPES, Function, Node, Program, Var

WORD = 0xFFFFFFFF
_STEPS = 200_000         # of one command; more is a mistake of the generator

State = dict[tuple[int, int], list[int]]     # (variable, thread or template argument) -> numbers


class Thrown(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


class _Return(Exception):
    def __init__(self, value: int) -> None:
        self.value = value


def text_hash(text: str) -> int:
    """FNV-1a, as `text` of the support code computes it."""
    value = 2166136261
    for byte in text.encode():
        value = (value ^ byte) * 16777619 & WORD
    return value


def _library(name: str, a: int) -> int:
    c = a & 127
    char = chr(c)
    simple: dict[str, Callable[[], int]] = {
        "toupper": lambda: ord(char.upper()) if "a" <= char <= "z" else c,
        "tolower": lambda: ord(char.lower()) if "A" <= char <= "Z" else c,
        "isdigit": lambda: int("0" <= char <= "9"),
        "isxdigit": lambda: int(char in "0123456789abcdefABCDEF"),
        "ffs": lambda: (a & -a).bit_length(),
        "labs": lambda: abs((a & 0xFFFF) - 30000),
        "abs": lambda: abs((a & 0xFFFF) - 30000),
        "strchr": lambda: int(chr(97 + a % 26) in "hello world"),
        "strspn": lambda: a % 4,
    }
    return simple[name]()


_BINARY: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "^": lambda a, b: a ^ b, "&": lambda a, b: a & b,
    "|": lambda a, b: a | b, "<<": lambda a, b: a << (b & 7), ">>": lambda a, b: a >> (b & 7), "%": lambda a, b: a % (b | 1),
    "<": lambda a, b: int(a < b), "==": lambda a, b: int(a == b),
}


class _Frame:
    def __init__(self, function: Function, params: list[int], argument: int = 0, this: int = 0) -> None:
        self.function, self.params, self.argument, self.this = function, params, argument, this
        self.tmps = [0] * TMPS
        self.let = 0


class Machine:
    """A process. `thread` is the one that runs: 0 is the main thread."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.state: State = {}
        self.members: dict[int, list[int]] = {k: [k + 1] * program.members for k in range(program.classes)}
        self.retired: State = {}
        self.thread = 0
        self._steps = 0

    # ---- commands ----------------------------------------------------------------------------------

    def command(self, line: str) -> str:
        """The answer to one line of input (see support.c)."""
        what, *numbers = line.split()
        self.thread = int(what in ("t", "e"))
        if what in ("d", "e"):
            return self.dump()
        entry, a, b = map(int, numbers)
        self._steps = 0
        try:
            return str(self.call(self.program.functions[self.program.entries[entry]], [a, b]))
        except Thrown as e:
            return f"throw {e.code}"

    def dump(self) -> str:
        parts = [str(n) for unit in sorted(self.program.order) for v in dumped(self.program, unit) for n in self.numbers(v)]
        parts += [str(n) for k in range(self.program.classes) for n in self.members[k]]
        return " ".join(parts)

    def numbers(self, v: Var, argument: int = 0) -> list[int]:
        key = (v.id, self.thread if v.thread else argument)
        if key not in self.state:
            self.state[key] = list(v.init)
        return self.state[key]

    # ---- functions ---------------------------------------------------------------------------------

    def call(self, f: Function, params: list[int], argument: int = 0, this: int = 0) -> int:
        frame = _Frame(f, params, argument, this)
        for v in self.program.statics_of(f.id):
            if v.dynamic is not None and (v.id, argument) not in self.state:
                self.state[v.id, argument] = [self.eval(v.dynamic, frame) & TYPES[v.ctype]]
        try:
            self.run(f.body, frame)
        except _Return as e:
            return e.value
        raise AssertionError(f"{f.name} does not return")

    def run(self, node: Node, frame: _Frame) -> None:
        self._steps += 1
        if self._steps > _STEPS:
            raise AssertionError("a command takes too many steps")
        getattr(self, f"_run_{node.kind}")(node, frame)

    def _run_block(self, node: Node, frame: _Frame) -> None:
        for statement in node.args:
            self.run(statement, frame)

    def _run_set(self, node: Node, frame: _Frame) -> None:
        target, expr = node.args
        self._assign(target, self.eval(expr, frame), frame)

    def _assign(self, target: Node, value: int, frame: _Frame) -> None:
        if target.kind == "tmp":
            frame.tmps[target.value] = value
        elif target.kind == "member":
            self.members[frame.this][target.value] = value
        else:
            v, index = self._place(target, frame)
            self.numbers(v, self._argument(v, frame))[index] = value & TYPES[v.ctype]

    def _place(self, node: Node, frame: _Frame) -> tuple[Var, int]:
        if node.kind == "field":
            return self.program.vars[node.value[0]], node.value[1]
        v = self.program.vars[node.value]
        return v, self.eval(node.args[0], frame) % len(v.init) if node.kind == "elem" else 0

    def _argument(self, v: Var, frame: _Frame) -> int:
        return frame.argument if v.kind == "slocal" else 0

    def _run_call(self, node: Node, frame: _Frame) -> None:
        frame.tmps[node.value[1]] = self._call(node.args[0], frame)

    def _call(self, node: Node, frame: _Frame) -> int:
        program = self.program
        args = [self.eval(a, frame) for a in node.args]
        if node.kind == "rec":
            return self.call(frame.function, [args[0], (frame.params[1] & 7) - 1], frame.argument) if frame.params[1] & 7 else 0
        if node.kind == "ftab":
            items = program.tables[node.value].items
            return self.call(program.functions[items[args[0] % len(items)]], args[1:])
        if node.kind == "vcall":
            this = args[0] % program.classes
            return self.call(method(program, this, node.value), args[1:], this=this)
        if node.kind == "tcall":
            return self.call(program.functions[node.value[0]], args, argument=node.value[1])
        if node.kind == "call":
            return self.call(program.functions[node.value], args)
        try:
            return self.call(program.functions[node.value], args)
        except Thrown as e:
            return e.code ^ 85

    def _run_if(self, node: Node, frame: _Frame) -> None:
        self.run(node.args[1 if self.eval(node.args[0], frame) else 2], frame)

    def _run_unlikely(self, node: Node, frame: _Frame) -> None:
        if self.eval(node.args[0], frame):
            self.run(node.args[1], frame)

    def _run_loop(self, node: Node, frame: _Frame) -> None:
        for i in range(node.value):
            frame.tmps[TMPS - 1] = i
            self.run(node.args[0], frame)
        frame.tmps[TMPS - 1] = node.value

    def _run_switch(self, node: Node, frame: _Frame) -> None:
        self.run(node.args[1 + self.eval(node.args[0], frame) % (len(node.args) - 1)], frame)

    _run_goto = _run_switch

    def _run_throw(self, node: Node, frame: _Frame) -> None:
        if self.eval(node.args[0], frame):
            raise Thrown(self.eval(node.args[1], frame))

    def _run_return(self, node: Node, frame: _Frame) -> None:
        raise _Return(self.eval(node.args[0], frame))

    # ---- expressions -------------------------------------------------------------------------------

    def eval(self, node: Node, frame: _Frame) -> int:
        return int(getattr(self, f"_eval_{node.kind}")(node, frame)) & WORD

    def _eval_const(self, node: Node, frame: _Frame) -> int:
        return int(node.value)

    def _eval_param(self, node: Node, frame: _Frame) -> int:
        return frame.params[node.value]

    def _eval_tmp(self, node: Node, frame: _Frame) -> int:
        return frame.tmps[node.value]

    def _eval_var(self, node: Node, frame: _Frame) -> int:
        v, index = self._place(node, frame)
        return self.numbers(v, self._argument(v, frame))[index]

    _eval_elem = _eval_field = _eval_var

    def _eval_member(self, node: Node, frame: _Frame) -> int:
        return self.members[frame.this][node.value]

    def _eval_table(self, node: Node, frame: _Frame) -> Any:
        items = self.program.tables[node.value].items
        return items[self.eval(node.args[0], frame) % len(items)]

    def _eval_words(self, node: Node, frame: _Frame) -> int:
        return text_hash(_unescaped(self._eval_table(node, frame)))

    def _eval_str(self, node: Node, frame: _Frame) -> int:
        return text_hash(_unescaped(node.value))

    def _eval_chr(self, node: Node, frame: _Frame) -> int:
        text = _unescaped(node.value)
        return ord(text[self.eval(node.args[0], frame) % len(text)])

    def _eval_bin(self, node: Node, frame: _Frame) -> int:
        return _BINARY[node.value](self.eval(node.args[0], frame), self.eval(node.args[1], frame))

    def _eval_cond(self, node: Node, frame: _Frame) -> int:
        return self.eval(node.args[1 if self.eval(node.args[0], frame) else 2], frame)

    def _eval_lib(self, node: Node, frame: _Frame) -> int:
        return _library(node.value, self.eval(node.args[0], frame))

    def _eval_dbl(self, node: Node, frame: _Frame) -> int:
        return int((self.eval(node.args[0], frame) & 0xFFFF) * float(node.value) + 0.25)

    def _eval_let(self, node: Node, frame: _Frame) -> int:
        frame.let = self.eval(node.args[0], frame)
        return self.eval(node.args[1], frame)

    def _eval_letvar(self, node: Node, frame: _Frame) -> int:
        return frame.let

    def _eval_deref(self, node: Node, frame: _Frame) -> int:
        return self.numbers(self.program.vars[self.program.pointers[node.value]])[0]

    def _eval_same(self, node: Node, frame: _Frame) -> int:
        return 1

    def _eval_line(self, node: Node, frame: _Frame) -> int:
        return 0

    def _eval_func(self, node: Node, frame: _Frame) -> int:
        return text_hash(function_text(frame.function))

    def _eval_tparam(self, node: Node, frame: _Frame) -> int:
        return frame.argument

    # ---- patches -----------------------------------------------------------------------------------

    def adopt(self, new: Program, left_out: frozenset[tuple[str, str]] = frozenset()) -> list["Machine"]:
        """What this process may be after a patch to `new`. More than one where the tool may choose: a static local that comes
        back, or whose function was renamed, goes on or starts anew. `left_out`: (function, variable), as symbols have them,
        of which this process had no value."""
        old = self.program
        next_machine = copy.copy(self)
        next_machine.program, next_machine.state = new, {}
        next_machine.retired = dict(self.retired)
        next_machine.members = {k: [*m, *[k + 1] * (new.members - len(m))] for k, m in self.members.items()}
        unsure: list[tuple[tuple[int, int], list[int]]] = []
        for key, numbers in {**self.retired, **self.state}.items():
            v = new.vars.get(key[0])
            if v is not None and _named(v, new, left_out):
                continue
            if v is None:
                next_machine.retired[key] = numbers
            elif v.id in old.vars:
                next_machine.state[key] = list(numbers) if v.dynamic else merged(numbers, old.vars[v.id].init, v)
                if _renamed_owner(old, new, v):
                    unsure.append((key, numbers))
            else:
                next_machine.retired.pop(key, None)
                next_machine.state[key] = list(numbers)
                if v.kind == "slocal":
                    unsure.append((key, numbers))
        return list(_choices(next_machine, unsure))


def _named(v: Var, p: Program, names: frozenset[tuple[str, str]]) -> bool:
    """Whether one of the names means `v`. In C++ they are mangled: _Z3f12jj and _ZL2v7 hold f12 and v7, behind their length."""
    if v.kind == "slocal":
        owner = p.functions[v.owner]
        name = f"m{owner.slot}" if owner.flavour == "method" else owner.name
        return any(variable == v.name and (function == name or f"{len(name)}{name}" in function) for function, variable in names)
    return any(not function and variable in (v.name, f"_ZL{len(v.name)}{v.name}") for function, variable in names)


def _renamed_owner(old: Program, new: Program, v: Var) -> bool:
    if v.kind != "slocal":
        return False
    before, after = old.functions[old.vars[v.id].owner], new.functions[v.owner]
    return (before.name, before.unit, before.static, before.params) != (after.name, after.unit, after.static, after.params)


def _choices(machine: Machine, unsure: list[tuple[tuple[int, int], list[int]]]) -> Iterator[Machine]:
    """`machine`, and with each of the first few `unsure` variables started anew."""
    some = unsure[:4]
    for bits in range(1 << len(some)):
        chosen = copy.copy(machine)
        chosen.state = {k: list(n) for k, n in machine.state.items()}
        chosen.retired = dict(machine.retired)
        chosen.members = {k: list(m) for k, m in machine.members.items()}
        for number, (key, _) in enumerate(some):
            if bits >> number & 1:
                del chosen.state[key]
        yield chosen


def merged(live: list[int], old_init: list[int], v: Var) -> list[int]:
    """Three ways, element by element: what still has its old initial value takes the new one; what is new starts."""
    found = [n for n in live[:len(v.init)]]
    for i, n in enumerate(found):
        if i < len(old_init) and n == old_init[i]:
            found[i] = v.init[i]
    return found + v.init[len(found):]


# ---- shared with emit.py ------------------------------------------------------------------------------------------


def dumped(p: Program, unit: int) -> list[Var]:
    """The variables that the dump of a unit prints."""
    return [v for v in p.vars.values() if v.unit == unit and v.kind != "slocal"]


def method(p: Program, owner: int, slot: int) -> Function:
    """The function that a virtual call reaches."""
    found = {f.owner: f for f in p.functions.values() if f.flavour == "method" and f.slot == slot}
    return found.get(owner) or found[0]


def function_text(f: Function) -> str:
    """What __func__ holds."""
    return f"m{f.slot}" if f.flavour == "method" else f.name


def _unescaped(text: str) -> str:
    return text.replace("\\n", "\n")
