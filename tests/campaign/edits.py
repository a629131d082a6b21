"""Random edits of programs, as people make them: each a valid program again.

An edit says by which refusals the tool may answer it. Everything else must be applied, and the process must then be what
`Machine.adopt` says.
"""
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from program import OPERATORS, TYPES, Function, Generator, Node, Program, Var, call_statement, const, is_call

# Refusals that any edit of a function may meet, since it may change what else the function holds.
_STATICS = frozenset({"static-local"})
_LAYOUT = frozenset({"data-size", "data-align", "data-type", "type-layout"})
_VIRTUAL = frozenset({"virtual-functions", "vtable"})


@dataclass(frozen=True)
class Kind:
    name: str
    make: Callable[["Editor"], bool]      # False: there is nothing in the program to make it on
    refusals: frozenset[str]              # codes by which it may be refused
    nothing: bool = False                 # it must change nothing
    language: str = ""                    # "": both


class Editor:
    """Edits one program in place."""

    def __init__(self, rng: random.Random, p: Program) -> None:
        self.rng, self.p, self.g = rng, p, Generator(rng, p)

    def some_function(self, **wanted: object) -> Function | None:
        found = [f for f in self.p.functions.values() if all(getattr(f, k) == v for k, v in wanted.items())]
        return self.rng.choice(found) if found else None

    def some_unit(self) -> int:
        return self.rng.choice(list(self.p.order))

    def nodes(self, *kinds: str) -> list[tuple[Function, Node]]:
        return [(f, n) for f in self.p.functions.values() for n in f.body.walk() if n.kind in kinds]

    def insert(self, f: Function, statement: Node) -> None:
        f.body.args.insert(self.rng.randrange(len(f.body.args)), statement)

    def some_var(self, *kinds: str) -> Var | None:
        found = [v for v in self.p.vars.values() if v.kind in kinds and v.id not in self.p.pointers]
        return self.rng.choice(found) if found else None


# ---- code --------------------------------------------------------------------------------------------------------


def constant(e: Editor) -> bool:
    found = e.nodes("const")
    if not found:
        return False
    e.rng.choice(found)[1].value = e.g.number()
    return True


def operator(e: Editor) -> bool:
    found = e.nodes("bin")
    if not found:
        return False
    e.rng.choice(found)[1].value = e.rng.choice(OPERATORS)
    return True


def statement_added(e: Editor) -> bool:
    f = e.some_function()
    if f is None:
        return False
    e.insert(f, e.g.statement(f, calls=False))
    return True


def statement_removed(e: Editor) -> bool:
    f = e.some_function()
    if f is None or len(f.body.args) < 3:
        return False
    del f.body.args[e.rng.randrange(len(f.body.args) - 1)]
    return True


def statements_swapped(e: Editor) -> bool:
    f = e.some_function()
    if f is None or len(f.body.args) < 3:
        return False
    i = e.rng.randrange(len(f.body.args) - 2)
    f.body.args[i:i + 2] = f.body.args[i + 1], f.body.args[i]
    return True


def return_value(e: Editor) -> bool:
    f = e.some_function()
    if f is None:
        return False
    f.body.args[-1] = Node("return", None, [Node("bin", "+", [f.body.args[-1].args[0], e.g.expr(f)])])
    return True


def call_added(e: Editor) -> bool:
    f = e.some_function()
    call = e.g.call(f) if f else None
    if f is None or call is None or call.kind == "rec":
        return False
    e.insert(f, call_statement(e.rng.randrange(3), call))
    return True


def call_removed(e: Editor) -> bool:
    found = [n for _, n in e.nodes("call") if isinstance(n.value, tuple)]
    if not found:
        return False
    node = e.rng.choice(found)
    node.kind, node.value, node.args = "set", None, [Node("tmp", node.value[1]), const(e.g.number())]
    return True


def function_added(e: Editor) -> bool:
    f = e.some_function(level=0) or e.some_function(level=1)
    if f is None:
        return False
    flavour = e.rng.choice(("plain", "plain", "variadic", "template" if e.p.language == "c++" else "plain"))
    new = e.g.function(f.level + 1, e.some_unit() if f.everywhere else f.unit, flavour)
    if f.everywhere or new.everywhere:
        new.static, new.attributes = False, []
    e.insert(f, call_statement(e.rng.randrange(3), e.g.call_of(new, f)))
    return True


def file_added(e: Editor) -> bool:
    """A new source file with state and a function, which an older function calls."""
    callers = [f for f in e.p.functions.values() if f.level == 0]
    unit = max(e.p.order) + 1
    e.p.order[unit], e.p.blank[unit] = [], 0
    for kind in ("static", "global"):
        e.g.variable(kind, unit)
    e.g.table("numbers", unit)
    new = e.g.function(1, unit)
    new.static, new.attributes = False, []
    f = e.rng.choice(callers)
    e.insert(f, call_statement(e.rng.randrange(3), e.g.call_of(new, f)))
    return True


def function_removed(e: Editor) -> bool:
    found = [f for f in e.p.functions.values() if not e.p.is_fixed(f.id)]
    if not found:
        return False
    f = e.rng.choice(found)
    _drop_calls(e, f)
    for v in e.p.statics_of(f.id):
        del e.p.vars[v.id]
    del e.p.functions[f.id]
    e.p.order[f.unit].remove(f.id)
    return True


def _drop_calls(e: Editor, f: Function) -> None:
    calls = {id(n) for _, n in e.p.callers(f.id)}
    for _, node in e.nodes("call"):
        if isinstance(node.value, tuple) and id(node.args[0]) in calls:
            node.kind, node.args, node.value = "set", [Node("tmp", node.value[1]), const(e.g.number())], None


def function_renamed(e: Editor) -> bool:
    found = [f for f in e.p.functions.values() if f.flavour in ("plain", "variadic", "template") and f.id not in e.p.entries]
    if not found:
        return False
    e.rng.choice(found).name = e.g.name("g")
    return True


def functions_reordered(e: Editor) -> bool:
    e.rng.shuffle(e.p.order[e.some_unit()])
    return True


def variables_reordered(e: Editor) -> bool:
    items = list(e.p.vars.items())
    e.rng.shuffle(items)
    e.p.vars = dict(items)
    return True


def parameter_added(e: Editor) -> bool:
    found = [f for f in e.p.functions.values() if f.flavour == "plain" and not e.p.is_fixed(f.id) and f.params < 8]
    if not found:
        return False
    f = e.rng.choice(found)
    if any(n.kind == "rec" for n in f.body.walk()):
        return False
    for caller, node in e.p.callers(f.id):
        node.args.append(e.g.expr(caller, 1))
    f.params += 1
    e.insert(f, Node("set", None, [Node("tmp", 0), Node("bin", "^", [Node("tmp", 0), Node("param", f.params - 1)])]))
    return True


def linkage(e: Editor) -> bool:
    """static, or no longer static."""
    found = [f for f in e.p.functions.values() if f.flavour == "plain" and f.level > 0]
    if not found:
        return False
    f = e.rng.choice(found)
    users = {g.unit for g, _ in e.p.callers(f.id)}
    users |= {t.unit for t in e.p.tables.values() if t.kind == "functions" and f.id in t.items}
    everywhere = any(g.everywhere for g, _ in e.p.callers(f.id))
    if not f.static and (users - {f.unit} or everywhere or "weak" in f.attributes):
        return False
    f.static = not f.static
    f.attributes = [a for a in f.attributes if a not in ("weak", "always_inline")]
    return True


def attributes(e: Editor) -> bool:
    """noinline, or inlined into its callers."""
    found = [f for f in e.p.functions.values() if f.flavour == "plain" and f.level > 0 and not e.p.is_fixed(f.id)
             and not any(n.kind in ("goto", "rec") for n in f.body.walk())]
    if not found:
        return False
    f = e.rng.choice(found)
    f.attributes = e.rng.choice(([], ["noinline"], ["cold"], ["always_inline"] if f.static else ["weak"]))
    return True


def moved_to_another_file(e: Editor) -> bool:
    found = [f for f in e.p.functions.values() if f.flavour in ("plain", "variadic") and not f.static and not f.inside]
    public = {v.id for v in e.p.vars.values() if v.kind in ("global", "tls", "inline", "slocal")}
    tables = {t.id for t in e.p.tables.values() if t.exported}

    def can_move(f: Function) -> bool:
        nodes = list(f.body.walk())
        return all(_variable(n) in public | {None} for n in nodes) and \
            all(n.value in tables for n in nodes if n.kind in ("table", "words", "ftab")) and \
            not any(e.p.functions[_callee(n)].static for n in nodes if _callee(n))

    found = [f for f in found if can_move(f)]
    if not found or len(e.p.order) < 2:
        return False
    f = e.rng.choice(found)
    e.p.order[f.unit].remove(f.id)
    f.unit = e.rng.choice([u for u in e.p.order if u != f.unit])
    e.p.order[f.unit].append(f.id)
    for v in e.p.statics_of(f.id):
        v.unit = f.unit
    return True


def _variable(n: Node) -> int | None:
    return n.value[0] if n.kind == "field" else n.value if n.kind in ("var", "elem") else None


def _callee(n: Node) -> int:
    if n.kind == "tcall":
        return int(n.value[0])
    return int(n.value) if n.kind in ("call", "try") and is_call(n) else 0


# ---- state -------------------------------------------------------------------------------------------------------


def _variable_added(e: Editor, kind: str) -> bool:
    unit = e.some_unit()
    v = e.g.variable(kind, unit)
    for f in e.rng.sample(list(e.p.functions.values()), min(4, len(e.p.functions))):
        if v in e.p.visible_vars(f):
            e.insert(f, e.g.use(f, v))
    return True


def global_added(e: Editor) -> bool:
    return _variable_added(e, "global")


def static_added(e: Editor) -> bool:
    return _variable_added(e, "static")


def inline_variable_added(e: Editor) -> bool:
    return _variable_added(e, "inline")


def thread_local_added(e: Editor) -> bool:
    return _variable_added(e, e.rng.choice(("tls", "stls")))


def static_local_added(e: Editor) -> bool:
    f = e.some_function()
    if f is None:
        return False
    e.insert(f, e.g.use(f, e.g.static_local(f)))
    return True


def static_locals_swapped(e: Editor) -> bool:
    """The declarations of one function's static locals in another order."""
    found = [f for f in e.p.functions.values() if len(e.p.statics_of(f.id)) > 1]
    if not found:
        return False
    own = e.p.statics_of(e.rng.choice(found).id)
    for v in own[:-1]:
        e.p.vars[v.id] = e.p.vars.pop(v.id)
    return True


def variable_removed(e: Editor) -> bool:
    v = e.some_var("global", "static", "slocal", "tls", "stls")
    if v is None:
        return False
    for _, node in e.nodes("var", "elem", "field"):
        if _variable(node) == v.id:
            node.kind, node.value, node.args = "tmp", e.rng.randrange(3), []
    del e.p.vars[v.id]
    return True


def static_renamed(e: Editor) -> bool:
    v = e.some_var("static")
    if v is None:
        return False
    new = e.p.new_id()
    renamed = Var(new, f"r{new}", "static", v.unit, list(v.init), v.ctype, v.array, v.struct)
    for _, node in e.nodes("var", "elem", "field"):
        if _variable(node) == v.id:
            node.value = (new, node.value[1]) if node.kind == "field" else new
    del e.p.vars[v.id]
    e.p.vars[new] = renamed
    return True


def initialiser(e: Editor) -> bool:
    found = [v for v in e.p.vars.values() if v.dynamic is None and not v.thread]
    if not found:
        return False
    v = e.rng.choice(found)
    v.init[e.rng.randrange(len(v.init))] = e.g.number() & TYPES[v.ctype]
    return True


def thread_local_initialiser(e: Editor) -> bool:
    v = e.some_var("tls", "stls")
    if v is None:
        return False
    v.init[0] = (v.init[0] + 1 + e.g.number()) & TYPES[v.ctype]
    return True


def array_grown(e: Editor) -> bool:
    found = [v for v in e.p.vars.values() if v.array and not v.thread]
    if not found:
        return False
    e.rng.choice(found).init.append(e.g.number() & 0xFF)
    return True


def type_changed(e: Editor) -> bool:
    found = [v for v in e.p.vars.values() if not v.struct and v.id not in e.p.pointers and v.dynamic is None]
    if not found:
        return False
    v = e.rng.choice(found)
    v.ctype = e.rng.choice([t for t in TYPES if t != v.ctype])
    v.init = [i & TYPES[v.ctype] for i in v.init]
    return True


def member_added(e: Editor) -> bool:
    name = e.rng.choice(list(e.p.structs))
    e.p.structs[name] += 1
    used = False
    for v in e.p.vars.values():
        if v.struct == name:
            v.init.append(e.g.number() & 0xFF)
            used = True
    return used


def class_member_added(e: Editor) -> bool:
    e.p.members += 1
    return e.p.classes > 0


def override_added(e: Editor) -> bool:
    have = {(f.owner, f.slot) for f in e.p.functions.values() if f.flavour == "method"}
    missing = [(k, s) for k in range(1, e.p.classes) for s in range(e.p.slots) if (k, s) not in have]
    if not missing:
        return False
    owner, slot = e.rng.choice(missing)
    e.g.function(1, e.some_unit(), "method", owner=owner, slot=slot, inside=e.rng.random() < 0.4)
    return True


def virtual_added(e: Editor) -> bool:
    if not e.p.classes:
        return False
    e.p.slots += 1
    e.g.function(1, e.some_unit(), "method", owner=0, slot=e.p.slots - 1)
    return True


# ---- constants ---------------------------------------------------------------------------------------------------


def table_content(e: Editor) -> bool:
    t = e.rng.choice(list(e.p.tables.values()))
    i = e.rng.randrange(len(t.items))
    if t.kind == "functions":
        t.items[i] = e.rng.choice(e.g.table_functions(t)).id
    else:
        t.items[i] = e.g.number() if t.kind == "numbers" else e.g.text()
    return True


def table_grown(e: Editor) -> bool:
    t = e.rng.choice(list(e.p.tables.values()))
    t.items.append(e.rng.choice(t.items))
    return True


def table_added(e: Editor) -> bool:
    kind = e.rng.choice(("numbers", "words", "functions"))
    t = e.g.table(kind, e.some_unit(), e.rng.choice((1, 2)))
    if t is None:
        return False
    users = [f for f in e.p.functions.values() if t in e.p.visible_tables(f) and f.level < max(t.level, 1)]
    for f in users[:2]:
        if kind == "functions":
            e.insert(f, call_statement(0, Node("ftab", t.id, [e.g.expr(f, 1) for _ in range(3)])))
        else:
            read = Node({"numbers": "table"}.get(kind, "words"), t.id, [e.g.expr(f, 1)])
            e.insert(f, Node("set", None, [Node("tmp", 0), Node("bin", "+", [Node("tmp", 0), read])]))
    return True


def literal(e: Editor) -> bool:
    found = e.nodes("str", "chr")
    if not found:
        return False
    node = e.rng.choice(found)[1]
    node.value = e.g.text() + ("abc" if node.kind == "chr" else "")
    return True


def literal_added(e: Editor) -> bool:
    f = e.some_function()
    if f is None:
        return False
    text = Node("str", e.g.text() + str(e.p.new_id()))
    e.insert(f, Node("set", None, [Node("tmp", 0), Node("bin", "^", [Node("tmp", 0), text])]))
    return True


# ---- noise -------------------------------------------------------------------------------------------------------


def lines_moved(e: Editor) -> bool:
    e.p.blank[e.some_unit()] += e.rng.randrange(1, 20)
    return True


def nothing(e: Editor) -> bool:
    return True


def several(e: Editor) -> bool:
    """A few of the plain ones at once."""
    plain = (constant, operator, statement_added, statement_removed, call_added, function_added, static_added, literal,
             function_removed, static_local_added, table_content, functions_reordered)
    return any([kind(e) for kind in e.rng.sample(plain, e.rng.randrange(2, 5))])


KINDS = (
    Kind("constant", constant, _STATICS),
    Kind("operator", operator, _STATICS),
    Kind("statement added", statement_added, _STATICS),
    Kind("statement removed", statement_removed, _STATICS),
    Kind("statements swapped", statements_swapped, _STATICS),
    Kind("return value", return_value, _STATICS),
    Kind("call added", call_added, _STATICS),
    Kind("call removed", call_removed, _STATICS),
    Kind("function added", function_added, _STATICS),
    Kind("file added", file_added, _STATICS),
    Kind("function removed", function_removed, _STATICS),
    Kind("function renamed", function_renamed, _STATICS),
    Kind("functions reordered", functions_reordered, _STATICS),
    Kind("variables reordered", variables_reordered, _STATICS),
    Kind("parameter added", parameter_added, _STATICS | {"signature"}),
    Kind("linkage", linkage, _STATICS | {"signature"}),
    Kind("attributes", attributes, _STATICS),
    Kind("moved to another file", moved_to_another_file, _STATICS),
    Kind("global added", global_added, _STATICS),
    Kind("static added", static_added, _STATICS),
    Kind("inline variable added", inline_variable_added, _STATICS, language="c++"),
    Kind("static local added", static_local_added, _STATICS),
    Kind("static locals swapped", static_locals_swapped, _STATICS),
    Kind("thread-local added", thread_local_added, _STATICS | {"tls-new"}),
    Kind("variable removed", variable_removed, _STATICS),
    Kind("static renamed", static_renamed, _STATICS),
    Kind("initialiser", initialiser, _STATICS | {"initialiser"}),
    Kind("initialiser of a thread-local", thread_local_initialiser, _STATICS | {"tls-changed"}),
    Kind("array grown", array_grown, _STATICS | _LAYOUT),
    Kind("type changed", type_changed, _STATICS | _LAYOUT | {"tls-changed"}),
    Kind("member added", member_added, _STATICS | _LAYOUT),
    Kind("class member added", class_member_added, _STATICS | _LAYOUT, language="c++"),
    Kind("override added", override_added, _STATICS | _LAYOUT | _VIRTUAL, language="c++"),
    Kind("virtual function added", virtual_added, _STATICS | _LAYOUT | _VIRTUAL, language="c++"),
    Kind("table content", table_content, _STATICS),
    Kind("table grown", table_grown, _STATICS | _LAYOUT),
    Kind("table added", table_added, _STATICS),
    Kind("literal", literal, _STATICS),
    Kind("literal added", literal_added, _STATICS),
    Kind("lines moved", lines_moved, frozenset(), nothing=True),
    Kind("nothing", nothing, frozenset(), nothing=True),
    Kind("several at once", several, _STATICS),
)
