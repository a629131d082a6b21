"""Programs of `program.py` as C or C++."""
from __future__ import annotations

from machine import dumped
from program import FIRST_UNITS, TMPS, Function, Node, Program, Table, Var

MAIN_C = r"""
#include <pthread.h>
#include <stdio.h>

void setup(void);
int invoke(unsigned entry, unsigned a, unsigned b, unsigned *out);
void dump_all(void);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static const char *work;

static void answer(const char *line)
{
  unsigned entry, a, b, out;

  if (sscanf(line + 1, "%u %u %u", &entry, &a, &b) == 3) {
    int returned = invoke(entry, a, b, &out);

    printf(returned ? "%u\n" : "throw %u\n", out);
  } else {
    dump_all();
  }
  fflush(stdout);
}

/* Lines that begin with "t" or "e" are answered here, by a thread that runs all the time. */
static void *other_thread(void *unused)
{
  pthread_mutex_lock(&lock);
  for (;;) {
    while (!work)
      pthread_cond_wait(&changed, &lock);
    answer(work);
    work = NULL;
    pthread_cond_signal(&changed);
  }
  return unused;
}

int main(void)
{
  char line[128];
  pthread_t thread;

  setup();
  pthread_create(&thread, NULL, other_thread, NULL);
  puts("ready");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    if (line[0] != 't' && line[0] != 'e') {
      answer(line);
      continue;
    }
    pthread_mutex_lock(&lock);
    work = line;
    pthread_cond_signal(&changed);
    while (work)
      pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
  }
  return 0;
}
"""

SUPPORT_C = r"""
unsigned (**saved)(unsigned, unsigned);
unsigned **pointers;

unsigned text(const char *p)
{
  unsigned value = 2166136261u;

  while (*p)
    value = (value ^ (unsigned char)*p++) * 16777619u;
  return value;
}

unsigned noted(int line) { return (unsigned)(line & 0); }

__attribute__((cold, noinline)) void rare(void) { __asm__ volatile(""); }
"""

_C_HEAD = r"""
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
"""

_SUPPORT = """\
extern unsigned (**saved)(unsigned, unsigned);
extern unsigned **pointers;
unsigned text(const char *);
unsigned noted(int);
void rare(void);
"""

_LIBRARY = {
    "toupper": "(unsigned)toupper((int)({a} & 127))", "tolower": "(unsigned)tolower((int)({a} & 127))",
    "isdigit": "(unsigned)(isdigit((int)({a} & 127)) != 0)", "isxdigit": "(unsigned)(isxdigit((int)({a} & 127)) != 0)",
    "ffs": "(unsigned)ffs((int)({a}))", "labs": "(unsigned)labs((long)({a} & 0xffffu) - 30000)",
    "abs": "(unsigned)abs((int)({a} & 0xffffu) - 30000)",
    "strchr": "(unsigned)(strchr(\"hello world\", (int)(97 + ({a}) % 26)) != 0)",
    "strspn": "(unsigned)strspn(\"xxxy\" + (3 - ({a}) % 4), \"x\")",
}


def sources(p: Program) -> dict[str, str]:
    """File name -> text of everything but main: the units, the set-up and the support code."""
    end = "c" if p.language == "c" else "cc"
    files = {f"u{unit}.{end}": unit_text(p, unit) for unit in p.order}
    return {**files, f"setup.{end}": _setup(p), "support.c": SUPPORT_C}


def unit_text(p: Program, unit: int) -> str:
    writer = _Writer(p)
    out = [f"/* moved {n} */" for n in range(p.blank.get(unit, 0))]
    out += [_head(p), *_declarations(p, unit)]
    out += [_definition(v) for v in p.vars.values() if v.unit == unit and v.kind not in ("slocal", "inline")]
    out += [_table(p, t) for t in p.tables.values() if t.unit == unit]
    out += [writer.function(p.functions[f]) for f in p.order[unit] if not p.functions[f].inside
            and p.functions[f].flavour != "template"]
    out.append(_dump(p, unit))
    return "\n".join(out) + "\n"


# ---- declarations --------------------------------------------------------------------------------------------------


def _head(p: Program) -> str:
    support = _SUPPORT if p.language == "c" else f'extern "C" {{\n{_SUPPORT}}}\nstruct Err {{ unsigned code; }};\n'
    structs = [f"struct {name} {{ {' '.join(f'unsigned m{i};' for i in range(count))} }};" for name, count in p.structs.items()]
    return _C_HEAD + support + "\n".join(structs) + "\n"


def _declarations(p: Program, unit: int) -> list[str]:
    """Everything of other units, and prototypes, so that the order of definitions is free. C++: classes and templates too,
    which belong into a header."""
    writer = _Writer(p)
    out = [f"extern {_thread(v)}{_declarator(v)};" for v in p.vars.values() if v.kind in ("global", "tls")]
    out += [_definition(v) for v in p.vars.values() if v.kind == "inline"]
    out += [f"extern {_table_type(t)};" for t in p.tables.values() if t.exported]
    for f in p.functions.values():
        if f.flavour in ("plain", "variadic") and (f.unit == unit or not f.static):
            out.append(writer.head(f) + ";")
    out += [_class(p, k) for k in range(p.classes)]
    if p.classes:
        out.append("extern K0 *objects[];")
    templates = [f for f in p.functions.values() if f.flavour == "template"]
    out += [writer.head(f) + ";" for f in templates] + [writer.function(f) for f in templates]
    out += [writer.function(f) for f in p.functions.values() if f.flavour == "method" and f.inside]
    return out


def _class(p: Program, k: int) -> str:
    declared = [f"virtual unsigned m{f.slot}(unsigned, unsigned){'' if k == 0 else ' override'};"
                for f in sorted(p.functions.values(), key=lambda f: f.slot) if f.flavour == "method" and f.owner == k]
    if k == 0:
        declared += [f"unsigned s{i};" for i in range(p.members)] + ["virtual ~K0() {}", f"K0(unsigned n) {{ {_fill(p)} }}"]
        return f"struct K0 {{ {' '.join(declared)} }};"
    return f"struct K{k} : K0 {{ {' '.join(declared)} K{k}(unsigned n) : K0(n) {{}} }};"


def _fill(p: Program) -> str:
    return " ".join(f"s{i} = n;" for i in range(p.members))


def _thread(v: Var) -> str:
    return "__thread " if v.thread else ""


def _declarator(v: Var) -> str:
    kind = f"struct {v.struct}" if v.struct else v.ctype
    return f"{kind} {v.name}" + (f"[{len(v.init)}]" if v.array else "")


def _definition(v: Var) -> str:
    storage = {"static": "static ", "stls": "static ", "slocal": "static ", "inline": "inline "}.get(v.kind, "")
    if v.array or v.struct:
        return f"{storage}{_thread(v)}{_declarator(v)} = {{{', '.join(f'{n}u' for n in v.init)}}};"
    return f"{storage}{_thread(v)}{_declarator(v)} = {v.init[0]}u;"


def _table_type(t: Table) -> str:
    size = len(t.items)
    if t.kind == "numbers":
        return f"const unsigned {t.name}[{size}]"
    if t.kind == "words":
        return f"const char *const {t.name}[{size}]"
    return f"unsigned (*const {t.name}[{size}])(unsigned, unsigned)"


def _table(p: Program, t: Table) -> str:
    items = [f"{i}u" if t.kind == "numbers" else _quoted(i) if t.kind == "words" else p.functions[i].name for i in t.items]
    return f"{'' if t.exported else 'static '}{_table_type(t)} = {{{', '.join(items)}}};"


def _quoted(text: str) -> str:
    return f'"{text}"'        # texts hold nothing but \n that needs care, and that is escaped already


# ---- set-up and dump -------------------------------------------------------------------------------------------------


def _dump(p: Program, unit: int) -> str:
    lines = []
    for v in dumped(p, unit):
        places = [f"{v.name}[{i}]" for i in range(len(v.init))] if v.array else \
            [f"{v.name}.m{i}" for i in range(len(v.init))] if v.struct else [v.name]
        lines += [f"  printf(\"%u \", (unsigned){place});" for place in places]
    return "\n".join([f"void dump_{unit}(void)", "{", *lines, "}"])


def _setup(p: Program) -> str:
    cpp = p.language == "c++"
    out = [_head(p), *[f"unsigned {p.functions[f].name}(unsigned, unsigned);" for f in p.entries]]
    out += [f"extern {_declarator(p.vars[v])};" for v in p.pointers] + [f"void dump_{u}(void);" for u in p.order]
    out += _setup_classes(p) if cpp else []
    out += ["static void (*dumpers[16])(void);", 'extern "C" void setup(void)' if cpp else "void setup(void)", "{",
            f"  saved = (unsigned (**)(unsigned, unsigned))calloc({len(p.entries)}, sizeof *saved);",
            f"  pointers = (unsigned **)calloc({len(p.pointers)} + 1, sizeof *pointers);"]
    out += [f"  saved[{i}] = {p.functions[f].name};" for i, f in enumerate(p.entries)]
    out += [f"  pointers[{i}] = &{p.vars[v].name};" for i, v in enumerate(p.pointers)]
    out += [f"  dumpers[{u}] = dump_{u};" for u in sorted(p.order) if u < FIRST_UNITS]
    out += [f"  objects[{k}] = new K{k}({k} + 1u);" for k in range(p.classes)]
    out += ["}", _INVOKE_CC if cpp else _INVOKE_C, 'extern "C" void dump_all(void)' if cpp else "void dump_all(void)", "{",
            "  for (int i = 0; i < 16 && dumpers[i]; i++) dumpers[i]();"]
    out += [f"  dump_{u}();" for u in sorted(p.order) if u >= FIRST_UNITS]      # files that edits brought
    out += [f"  printf(\"%u \", objects[{k}]->s{i});" for k in range(p.classes) for i in range(p.members)]
    return "\n".join([*out, '  printf("\\n");', "}", ""])


def _setup_classes(p: Program) -> list[str]:
    """The methods that are defined inside their classes need all that they refer to."""
    if not p.classes:
        return []
    return [*_declarations(p, -1), f"K0 *objects[{p.classes}];"]


_INVOKE_C = """\
int invoke(unsigned entry, unsigned a, unsigned b, unsigned *out)
{
  *out = saved[entry](a, b);
  return 1;
}"""

_INVOKE_CC = """\
extern "C" int invoke(unsigned entry, unsigned a, unsigned b, unsigned *out)
{
  try {
    *out = saved[entry](a, b);
    return 1;
  } catch (const Err &e) {
    *out = e.code;
    return 0;
  }
}"""


# ---- functions -------------------------------------------------------------------------------------------------------


class _Writer:
    """Writes functions. Line breaks matter: each statement has a line of its own, as people write it."""

    def __init__(self, p: Program) -> None:
        self.p = p
        self.labels = 0
        self.f: Function | None = None

    def head(self, f: Function, definition: bool = False) -> str:
        params = ", ".join(f"unsigned p{i}" for i in range(f.params)) or "void"
        if f.flavour == "variadic":
            params = "unsigned p0, ..."
        if f.flavour == "method":
            return f"{'inline ' if f.inside else ''}unsigned K{f.owner}::m{f.slot}({params})"
        words = ["template<unsigned K>"] if f.flavour == "template" else []
        if f.static:
            words.append("static")
        if "always_inline" in f.attributes:
            words.append("inline")
        if f.attributes and not definition:
            words.append(f"__attribute__(({', '.join(f.attributes)}))")
        return " ".join([*words, f"unsigned {f.name}({params})"])

    def function(self, f: Function) -> str:
        self.f, self.labels = f, 0
        lines = [self.head(f, True), "{"]
        for v in self.p.statics_of(f.id):
            if v.dynamic is not None:
                lines.append(f"  static {_declarator(v)} = ({v.ctype})({self.expr(v.dynamic)});")
            else:
                lines.append("  " + _definition(v))
        if f.flavour == "variadic":
            lines += ["  va_list list;", "  va_start(list, p0);", "  unsigned p1 = va_arg(list, unsigned);", "  va_end(list);"]
        lines += [f"  unsigned {', '.join(f't{i} = 0' for i in range(TMPS))};", "  (void)t0, (void)t1, (void)t2, (void)t3;"]
        for statement in f.body.args:
            lines += self.statement(statement, "  ")
        return "\n".join([*lines, "}"])

    def statement(self, n: Node, pad: str) -> list[str]:
        if n.kind == "block":
            return [f"{pad}{{", *(line for s in n.args for line in self.statement(s, pad + "  ")), f"{pad}}}"]
        if n.kind == "set":
            return [f"{pad}{self.place(n.args[0])} = {self.expr(n.args[1])};"]
        if n.kind == "call":
            return [f"{pad}t{n.value[1]} = {self.call(n.args[0])};"]
        if n.kind == "return":
            return [f"{pad}return {self.expr(n.args[0])};"]
        if n.kind == "if":
            return [f"{pad}if ({self.expr(n.args[0])})", *self.statement(n.args[1], pad), f"{pad}else",
                    *self.statement(n.args[2], pad)]
        if n.kind == "unlikely":
            return [f"{pad}if (__builtin_expect({self.expr(n.args[0])}, 0)) {{", f"{pad}  rare();",
                    *self.statement(n.args[1], pad + "  "), f"{pad}}}"]
        if n.kind == "loop":
            return [f"{pad}for (t3 = 0; t3 < {n.value}u; t3++)", *self.statement(n.args[0], pad)]
        if n.kind == "throw":
            return [f"{pad}if ({self.expr(n.args[0])})", f"{pad}  throw Err{{{self.expr(n.args[1])}}};"]
        return self.switch(n, pad) if n.kind == "switch" else self.goto(n, pad)

    def switch(self, n: Node, pad: str) -> list[str]:
        cases = n.args[1:]
        lines = [f"{pad}switch (({self.expr(n.args[0])}) % {len(cases)}u) {{"]
        for number, case in enumerate(cases):
            lines += [f"{pad}case {number}:", *self.statement(case, pad + "  "), f"{pad}  break;"]
        return [*lines, f"{pad}}}"]

    def goto(self, n: Node, pad: str) -> list[str]:
        self.labels += 1
        mine, cases = self.labels, n.args[1:]
        names = [f"l{mine}_{number}" for number in range(len(cases))]
        lines = [f"{pad}{{", f"{pad}  static void *const labels{mine}[] = {{{', '.join('&&' + x for x in names)}}};",
                 f"{pad}  goto *labels{mine}[({self.expr(n.args[0])}) % {len(cases)}u];"]
        for name, case in zip(names, cases):
            lines += [f"{pad}{name}:", *self.statement(case, pad + "  "), f"{pad}  goto l{mine}_end;"]
        return [*lines, f"{pad}l{mine}_end:;", f"{pad}}}"]

    def place(self, n: Node) -> str:
        if n.kind == "tmp":
            return f"t{n.value}"
        if n.kind == "member":
            return f"s{n.value}"
        if n.kind == "field":
            return f"{self.p.vars[n.value[0]].name}.m{n.value[1]}"
        v = self.p.vars[n.value]
        return f"{v.name}[({self.expr(n.args[0])}) % {len(v.init)}u]" if n.kind == "elem" else v.name

    def call(self, n: Node) -> str:
        p, args = self.p, [self.expr(a) for a in n.args]
        assert self.f is not None
        if n.kind == "rec":
            name = self.f.name if self.f.flavour != "template" else f"{self.f.name}<K>"
            return f"(p1 & 7u) ? {name}({args[0]}, (p1 & 7u) - 1u) : 0u"
        if n.kind == "ftab":
            t = p.tables[n.value]
            return f"{t.name}[({args[0]}) % {len(t.items)}u]({', '.join(args[1:])})"
        if n.kind == "vcall":
            return f"objects[({args[0]}) % {p.classes}u]->m{n.value}({', '.join(args[1:])})"
        if n.kind == "tcall":
            return f"{p.functions[n.value[0]].name}<{n.value[1]}u>({', '.join(args)})"
        name = p.functions[n.value].name
        if n.kind == "call":
            return f"{name}({', '.join(args)})"
        return (f"[&]() -> unsigned {{ try {{ return {name}({', '.join(args)}); }} "
                "catch (const Err &e) { return e.code ^ 85u; } }()")

    def expr(self, n: Node) -> str:
        if n.kind in ("var", "elem", "field", "tmp", "member"):
            return f"(unsigned){self.place(n)}"
        if n.kind == "let":
            return self.let(n)
        p, args = self.p, [self.expr(a) for a in n.args]
        simple = {"const": lambda: f"{n.value}u", "param": lambda: f"p{n.value}", "letvar": lambda: "let", "tparam": lambda: "K",
                  "line": lambda: "noted(__LINE__)", "func": lambda: "text(__func__)", "deref": lambda: f"*pointers[{n.value}]",
                  "str": lambda: f"text({_quoted(n.value)})",
                  "same": lambda: f"(unsigned)(saved[{n.value}] == {p.functions[p.entries[n.value]].name})"}
        if n.kind in simple:
            return simple[n.kind]()
        if n.kind == "bin":
            return self.binary(n.value, *args)
        if n.kind == "cond":
            return f"(({args[0]}) ? ({args[1]}) : ({args[2]}))"
        if n.kind == "lib":
            return "(" + _LIBRARY[n.value].format(a=args[0]) + ")"
        if n.kind == "dbl":
            return f"((unsigned)((double)(({args[0]}) & 0xffffu) * {n.value!r} + 0.25))"
        if n.kind == "chr":
            return f"(unsigned)(unsigned char){_quoted(n.value)}[({args[0]}) % {len(n.value.replace(chr(92) + 'n', 'n'))}u]"
        t = p.tables[n.value]
        item = f"{t.name}[({args[0]}) % {len(t.items)}u]"
        return item if n.kind == "table" else f"text({item})"

    def binary(self, operator: str, a: str, b: str) -> str:
        if operator in ("<<", ">>"):
            return f"(({a}) {operator} (({b}) & 7u))"
        if operator == "%":
            return f"(({a}) % (({b}) | 1u))"
        return f"((unsigned)(({a}) {operator} ({b})))"

    def let(self, n: Node) -> str:
        arg, body = self.expr(n.args[0]), self.expr(n.args[1])
        # In a lambda, __func__ would be the lambda's.
        if self.p.language == "c" or any(x.kind == "func" for x in n.args[1].walk()):
            return f"({{ unsigned let = {arg}; (void)let; {body}; }})"
        return f"[&](unsigned let) -> unsigned {{ (void)let; return {body}; }}({arg})"
