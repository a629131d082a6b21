"""Random programs as data: functions over 32-bit numbers, with state of every kind that a program can have.

A program is a set of functions that compute with `unsigned` and read and write globals, statics, static locals,
thread-locals, arrays, structs and constant tables. `emit.py` writes it as C or C++; `machine.py` runs it in Python.

Expressions and statements are trees of `Node`. Expressions have no side effects: a call is a statement that assigns to a
temporary, so that the order of evaluation, which C leaves open, makes no difference.

expression      value               args           meaning
const           number                             the number
param, tmp      index                              parameter, temporary (0 at the start)
var             variable                           a scalar
elem            variable            index          array[index % size]
field           (variable, index)                  member of a struct variable
member          index                              of the object a method works on
table           table               index          constant table[index % size]
words           table               index          hash of the string strings[index % size]
str             text                               hash of a string literal
chr             text                index          character of a literal
bin             operator            a, b
cond                                c, a, b        c ? a : b
lib             name                a              a function of the C library
dbl             factor              a              (unsigned)((a & 0xffff) * factor + 0.25)
let                                 arg, body      body with `letvar` bound; a lambda in C++
letvar
deref           index                              *pointers[index], stored when the program started
same            index                              saved[index] == the entry function, a pointer stored at the start
line                                               0, made with __LINE__
func                                               hash of __func__
tparam                                             the template's argument

statement       value               args
set                                 target, expr   target: tmp, var, elem, field, member
call            tmp                 call           call: call f args | rec a b | ftab table index a b | vcall slot index a b |
                                                   tcall (f, K) a b | try f args
if                                  cond, block, block
unlikely                            cond, block    in a cold part of the function
loop            count               block          no calls inside
switch                              expr, block…   dense
goto                                expr, block…   through a table of labels
throw                               cond, expr     C++
return                              expr
block                               statements
"""
from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

TYPES = {"unsigned": 0xFFFFFFFF, "unsigned char": 0xFF, "unsigned short": 0xFFFF, "unsigned long": 0xFFFFFFFF}
OPERATORS = ("+", "-", "*", "^", "&", "|", "<<", ">>", "%", "<", "==")
LIBRARY = ("toupper", "isdigit", "ffs", "labs", "strchr", "abs", "isxdigit", "tolower", "strspn")
TMPS = 4                 # temporaries of a function; the last one counts loops
FIRST_UNITS = 2          # source files that a program begins with
LEVELS = 3               # functions call functions of higher levels only


@dataclass
class Node:
    kind: str
    value: Any = None
    args: list["Node"] = field(default_factory=list)

    def walk(self) -> Iterator["Node"]:
        yield self
        for arg in self.args:
            yield from arg.walk()


def const(value: int) -> Node:
    return Node("const", value)


@dataclass
class Var:
    """`kind`: "global" | "static" | "slocal" (static local) | "tls" | "stls" (static thread-local) | "inline" (C++)."""
    id: int
    name: str
    kind: str
    unit: int
    init: list[int]
    ctype: str = "unsigned"
    array: bool = False
    struct: str | None = None        # a struct variable; `init` has a number for each member
    owner: int = -1                  # function of a static local
    dynamic: Node | None = None      # C++: initialised by code, at the first call

    @property
    def thread(self) -> bool:
        return self.kind in ("tls", "stls")


@dataclass
class Table:
    """A constant. `kind`: "numbers" | "words" (strings) | "functions" (that take two numbers, of `level`)."""
    id: int
    name: str
    kind: str
    unit: int
    items: list[Any]
    exported: bool = False
    level: int = 0


@dataclass
class Function:
    """`flavour`: "plain" | "variadic" | "template" | "method". Methods have a class and a slot."""
    id: int
    name: str
    unit: int
    level: int
    body: Node
    params: int = 2
    static: bool = False
    attributes: list[str] = field(default_factory=list)
    flavour: str = "plain"
    owner: int = 0           # class of a method
    slot: int = 0
    inside: bool = False     # a method defined inside its class

    @property
    def everywhere(self) -> bool:
        """Defined in every unit, as in a header: it can use only what every unit can."""
        return self.flavour == "template" or self.inside


@dataclass
class Program:
    language: str                                            # "c" | "c++"
    vars: dict[int, Var] = field(default_factory=dict)       # in order of declaration
    tables: dict[int, Table] = field(default_factory=dict)
    functions: dict[int, Function] = field(default_factory=dict)
    order: dict[int, list[int]] = field(default_factory=dict)    # unit -> functions in order of definition
    structs: dict[str, int] = field(default_factory=dict)    # name -> number of members
    entries: list[int] = field(default_factory=list)         # functions whose address is stored at the start
    pointers: list[int] = field(default_factory=list)        # variables whose address is stored at the start
    blank: dict[int, int] = field(default_factory=dict)      # unit -> comment lines before its code
    classes: int = 0
    slots: int = 0
    members: int = 1
    next_id: int = 1

    def copy(self) -> "Program":
        return copy.deepcopy(self)

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id

    # ---- who uses what ---------------------------------------------------------------------------

    def callers(self, function: int) -> list[tuple[Function, Node]]:
        return [(f, n) for f in self.functions.values() for n in f.body.walk()
                if n.kind in ("call", "try") and n.value == function and n.args is not None and is_call(n)
                or n.kind == "tcall" and n.value[0] == function]

    def is_fixed(self, function: int) -> bool:
        """Whether its signature and existence are given: something other than a call refers to it."""
        f = self.functions[function]
        return function in self.entries or f.flavour == "method" or \
            any(function in t.items for t in self.tables.values() if t.kind == "functions")

    def visible_vars(self, f: Function) -> list[Var]:
        return [v for v in self.vars.values() if v.kind in ("global", "tls", "inline") or v.kind == "slocal" and v.owner == f.id
                or v.unit == f.unit and v.kind in ("static", "stls") and not f.everywhere]

    def visible_tables(self, f: Function) -> list[Table]:
        return [t for t in self.tables.values() if t.exported or t.unit == f.unit and not f.everywhere]

    def callable_from(self, f: Function) -> list[Function]:
        return [g for g in self.functions.values() if g.level > f.level and g.flavour != "method"
                and (not g.static or g.unit == f.unit and not f.everywhere)]

    def statics_of(self, function: int) -> list[Var]:
        return [v for v in self.vars.values() if v.kind == "slocal" and v.owner == function]


def is_call(node: Node) -> bool:
    return node.kind in ("call", "try", "rec", "ftab", "vcall", "tcall") and not (node.kind == "call" and isinstance(
        node.value, tuple))


def call_statement(tmp: int, call: Node) -> Node:
    """`value` is a tuple, by which a call statement differs from a call."""
    return Node("call", ("tmp", tmp), [call])


# ---- generation --------------------------------------------------------------------------------------------------


class Generator:
    """Makes random parts of programs. The same random state gives the same parts."""

    def __init__(self, rng: random.Random, program: Program) -> None:
        self.rng, self.p = rng, program

    def number(self) -> int:
        rng = self.rng
        return rng.choice((rng.randrange(16), rng.randrange(256), rng.randrange(1 << 16), rng.randrange(1 << 32)))

    def name(self, prefix: str) -> str:
        return f"{prefix}{self.p.new_id()}"

    def text(self) -> str:
        words = ("red", "green", "blue", "north", "south", "one", "two", "x", "a longer piece of text", "", "%d\\n")
        return self.rng.choice(words) + self.rng.choice(("", " ", "!", f" {self.rng.randrange(10)}"))

    # ---- expressions -----------------------------------------------------------------------------

    def expr(self, f: Function, depth: int = 2, let: bool = False) -> Node:
        rng = self.rng
        if depth <= 0 or rng.random() < 0.2:
            return self.leaf(f, let)
        kind = rng.choice(("bin", "bin", "bin", "bin", "cond", "table", "words", "chr", "lib", "dbl", "let", "elem", "str",
                           "deref", "same", "func", "line"))
        sub = [self.expr(f, depth - 1, let) for _ in range(3)]
        made = self._compound(f, kind, sub, depth, let)
        return made or Node("bin", rng.choice(OPERATORS), sub[:2])

    def _compound(self, f: Function, kind: str, sub: list[Node], depth: int, let: bool) -> Node | None:
        rng = self.rng
        if kind in ("table", "words"):
            found = [t for t in self.p.visible_tables(f) if t.kind == {"table": "numbers", "words": "words"}[kind]]
            return Node(kind, rng.choice(found).id, sub[:1]) if found else None
        if kind == "elem":
            arrays = [v for v in self.p.visible_vars(f) if v.array]
            return Node("elem", rng.choice(arrays).id, sub[:1]) if arrays else None
        if kind == "let" and not let:
            return Node("let", None, [sub[0], self.expr(f, depth - 1, True)])
        simple = {"cond": lambda: Node("cond", None, sub), "chr": lambda: Node("chr", self.text() + "abc", sub[:1]),
                  "lib": lambda: Node("lib", rng.choice(LIBRARY), sub[:1]), "str": lambda: Node("str", self.text()),
                  "dbl": lambda: Node("dbl", rng.choice((0.5, 1.375, 2.25, 3.125, 0.0625)), sub[:1]),
                  "deref": lambda: Node("deref", rng.randrange(len(self.p.pointers))) if self.p.pointers else None,
                  "same": lambda: Node("same", rng.randrange(len(self.p.entries))) if self.p.entries else None,
                  "func": lambda: Node("func"), "line": lambda: Node("line")}
        return simple[kind]() if kind in simple else None

    def leaf(self, f: Function, let: bool = False) -> Node:
        rng = self.rng
        kind = rng.choice(("const", "param", "param", "tmp", "var", "var", "field", "special"))
        if kind == "var":
            scalars = [v for v in self.p.visible_vars(f) if not v.array and not v.struct]
            return Node("var", rng.choice(scalars).id) if scalars else const(self.number())
        if kind == "field":
            structs = [v for v in self.p.visible_vars(f) if v.struct]
            if structs:
                v = rng.choice(structs)
                return Node("field", (v.id, rng.randrange(len(v.init))))
        if kind == "special":
            if let:
                return Node("letvar")
            if f.flavour == "method":
                return Node("member", rng.randrange(self.p.members))
            if f.flavour == "template":
                return Node("tparam")
        if kind == "param" and f.params:
            return Node("param", rng.randrange(f.params))
        return Node("tmp", rng.randrange(TMPS - 1)) if kind == "tmp" else const(self.number())

    # ---- statements ------------------------------------------------------------------------------

    def statement(self, f: Function, depth: int = 2, calls: bool = True) -> Node:
        rng = self.rng
        kind = rng.choice(("set", "set", "set", "if", "loop", "switch", "unlikely", "goto", "call", "call", "throw"))
        if kind == "call" and calls:
            call = self.call(f)
            if call is not None:
                return call_statement(rng.randrange(TMPS - 1), call)
        if kind in ("if", "loop", "switch", "unlikely", "goto") and depth > 0:
            return self._nested(f, kind, depth, calls)
        if kind == "throw" and self.p.language == "c++" and f.flavour != "variadic":
            some = Node("bin", "%", [Node("param", 0), const(10)])
            return Node("throw", None, [Node("bin", "==", [some, const(rng.randrange(14))]), self.expr(f, 1)])
        return Node("set", None, [self.target(f), self.expr(f)])

    def _nested(self, f: Function, kind: str, depth: int, calls: bool) -> Node:
        rng = self.rng
        if kind == "if":
            return Node("if", None, [self.expr(f), self.block(f, depth - 1, calls), self.block(f, depth - 1, calls)])
        if kind == "unlikely":
            rare = Node("bin", "==", [Node("bin", "&", [self.expr(f, 1), const(7)]), const(rng.randrange(8))])
            return Node("unlikely", None, [rare, self.block(f, depth - 1, False)])
        if kind == "loop":
            # The loop's counter is the last temporary, so loops do not nest.
            return Node("loop", rng.randrange(1, 9), [Node("block", None, [Node("set", None, [self.target(f), self.expr(f)])])])
        if "always_inline" in f.attributes and kind == "goto" or f.flavour in ("template", "method") and kind == "goto":
            kind = "switch"
        cases = [self.block(f, 0, calls) for _ in range(rng.choice((2, 4, 6, 8)))]
        if kind == "switch" and rng.random() < 0.4:       # constants only: compilers make a table of it
            tmp = rng.randrange(TMPS - 1)
            cases = [Node("block", None, [Node("set", None, [Node("tmp", tmp), const(self.number())])]) for _ in cases]
        return Node(kind, None, [self.expr(f, 1), *cases])

    def block(self, f: Function, depth: int, calls: bool) -> Node:
        return Node("block", None, [self.statement(f, depth, calls) for _ in range(self.rng.choice((1, 1, 2)))])

    def target(self, f: Function) -> Node:
        rng = self.rng
        state = [v for v in self.p.visible_vars(f)]
        if f.flavour == "method" and rng.random() < 0.4:
            return Node("member", rng.randrange(self.p.members))
        if not state or rng.random() < 0.25:
            return Node("tmp", rng.randrange(TMPS - 1))
        own = [v for v in state if v.kind == "slocal"]
        v = rng.choice(own) if own and rng.random() < 0.4 else rng.choice(state)
        return self.place(f, v)

    def place(self, f: Function, v: Var) -> Node:
        if v.array:
            return Node("elem", v.id, [self.expr(f, 1)])
        return Node("field", (v.id, self.rng.randrange(len(v.init)))) if v.struct else Node("var", v.id)

    def call(self, f: Function) -> Node | None:
        """A call of something of a higher level, at most three in a function."""
        rng, p = self.rng, self.p
        if sum(is_call(n) for n in f.body.walk()) >= 3:
            return None
        tables = [t for t in p.visible_tables(f) if t.kind == "functions" and t.level > f.level]
        if tables and rng.random() < 0.3:
            return Node("ftab", rng.choice(tables).id, [self.expr(f, 1) for _ in range(3)])
        if p.classes and f.level == 0 and rng.random() < 0.4:
            return Node("vcall", rng.randrange(p.slots), [self.expr(f, 1) for _ in range(3)])
        if f.level == LEVELS - 1 and f.params == 2 and f.flavour == "plain" and "always_inline" not in f.attributes \
                and not any(is_call(n) for n in f.body.walk()):
            return Node("rec", None, [self.expr(f, 1), const(0)])
        found = p.callable_from(f)
        return self.call_of(rng.choice(found), f) if found else None

    def call_of(self, callee: Function, f: Function) -> Node:
        args = [self.expr(f, 1) for _ in range(callee.params)]
        if callee.flavour == "template":
            return Node("tcall", (callee.id, self.rng.choice((1, 3, 7))), args)
        throws = self.p.language == "c++" and self.rng.random() < 0.4
        return Node("try" if throws else "call", callee.id, args)

    # ---- whole things ----------------------------------------------------------------------------

    def function(self, level: int, unit: int, flavour: str = "plain", **fields: Any) -> Function:
        rng, p = self.rng, self.p
        f = Function(p.new_id(), "", unit, level, Node("block"), flavour=flavour, **fields)
        f.name = f"f{f.id}"
        if flavour == "plain" and level > 0:
            f.static = rng.random() < 0.6
            f.attributes = self._attributes(f)
        p.functions[f.id] = f
        p.order.setdefault(unit, []).insert(rng.randrange(len(p.order.get(unit, [])) + 1), f.id)
        if rng.random() < 0.45:
            self.static_local(f)
        self.fill(f)
        return f

    def _attributes(self, f: Function) -> list[str]:
        chance = self.rng.random()
        if chance < 0.4:
            return ["noinline"]
        if chance < 0.5 and f.static:
            return ["always_inline"]
        return ["weak"] if chance < 0.57 and not f.static else ["cold"] if chance < 0.62 else []

    def fill(self, f: Function) -> None:
        count = self.rng.randrange(2, 5)
        for _ in range(count):
            f.body.args.append(self.statement(f))
        for v in self.p.statics_of(f.id):
            f.body.args.insert(self.rng.randrange(len(f.body.args) + 1), self.use(f, v))
        f.body.args.append(Node("return", None, [self.expr(f)]))

    def use(self, f: Function, v: Var) -> Node:
        """A statement that reads and writes the variable."""
        place = self.place(f, v)
        read = Node(place.kind, place.value, [a for a in place.args])
        return Node("block", None, [Node("set", None, [place, Node("bin", "+", [read, self.expr(f, 1)])]),
                                    Node("set", None, [Node("tmp", self.rng.randrange(TMPS - 1)), copy.deepcopy(read)])])

    def static_local(self, f: Function) -> Var:
        rng = self.rng
        taken = {v.name for v in self.p.statics_of(f.id)}
        name = next((n for n in rng.sample(("n", "count", "last", "seen"), 4) if n not in taken), f"s{self.p.next_id}")
        v = Var(self.p.new_id(), name, "slocal", f.unit, [self.number()], rng.choice(list(TYPES)), owner=f.id)
        if rng.random() < 0.25:
            v.init, v.array = [self.number() for _ in range(rng.choice((2, 4)))], True
        elif rng.random() < 0.3:
            v.init = [0]
        elif self.p.language == "c++" and rng.random() < 0.3:
            v.dynamic = Node("bin", "+", [Node("param", 0), const(self.number())])
        if v.array and rng.random() < 0.3:
            v.init = [0] * len(v.init)
        v.init = [i & TYPES[v.ctype] for i in v.init]
        self.p.vars[v.id] = v
        return v

    def variable(self, kind: str, unit: int) -> Var:
        rng = self.rng
        v = Var(self.p.new_id(), "", kind, unit, [self.number()], rng.choice(list(TYPES)))
        v.name = f"v{v.id}"
        shape = rng.random()
        if shape < 0.25:
            v.init, v.array = [self.number() for _ in range(rng.choice((3, 4, 8)))], True
        elif shape < 0.35 and self.p.structs and not v.thread:
            v.struct = rng.choice(list(self.p.structs))
            v.init, v.ctype = [self.number() for _ in range(self.p.structs[v.struct])], "unsigned"
        if rng.random() < 0.35:
            v.init = [0] * len(v.init)
        v.init = [i & TYPES[v.ctype] for i in v.init]
        self.p.vars[v.id] = v
        return v

    def table(self, kind: str, unit: int, level: int = 0) -> Table | None:
        rng, p = self.rng, self.p
        t = Table(p.new_id(), "", kind, unit, [], rng.random() < 0.4, level)
        t.name = f"{kind[0]}t{t.id}"
        if kind == "functions":
            t.exported = False
            found = self.table_functions(t)
            if not found:
                return None
            t.items = [rng.choice(found).id for _ in range(rng.choice((2, 3, 4)))]
        else:
            make = self.number if kind == "numbers" else self.text
            t.items = [make() for _ in range(rng.choice((2, 4, 5, 9)))]
        p.tables[t.id] = t
        return t

    def table_functions(self, t: Table) -> list[Function]:
        return [f for f in self.p.functions.values() if f.level >= t.level and f.params == 2 and f.flavour == "plain"
                and (f.unit == t.unit or not f.static) and "always_inline" not in f.attributes and f.level > 0]


def generate(rng: random.Random, language: str, units: int = FIRST_UNITS) -> Program:
    """A whole program."""
    p = Program(language)
    g = Generator(rng, p)
    p.structs = {"s0": 2, "s1": 3}
    for unit in range(units):
        p.order[unit], p.blank[unit] = [], 0
        for kind in ("global", "static", "static", "static", "tls", "stls", *(["inline"] if language == "c++" else [])):
            g.variable(kind, unit)
        for kind in ("numbers", "numbers", "words"):
            g.table(kind, unit)
    plain = [v for v in p.vars.values() if v.kind == "global" and not v.array and not v.struct and v.ctype == "unsigned"]
    p.pointers = [v.id for v in plain]
    for level in reversed(range(LEVELS)):
        flavours = ["plain"] * 4 + (["variadic"] if level else []) + (["template"] if language == "c++" and level else [])
        for number, flavour in enumerate(flavours):
            f = g.function(level, number % units, flavour)
            if level == 0:
                p.entries.append(f.id)
        if level:
            g.table("functions", rng.randrange(units), level)
        if level == 1 and language == "c++":
            _classes(g)
    return p


def _classes(g: Generator) -> None:
    p, rng = g.p, g.rng
    p.classes, p.slots, p.members = 3, 2, 2
    for owner in range(p.classes):
        for slot in range(p.slots):
            if owner == 0 or rng.random() < 0.6:
                g.function(1, rng.randrange(len(p.order)), "method", owner=owner, slot=slot, inside=rng.random() < 0.4)
