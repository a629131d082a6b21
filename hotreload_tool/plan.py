"""Every difference becomes supported work or a refusal with its reason.

`make_plan` compares new object maps with the live state of one image. It never looks at bytes: what a function or a
variable is, its digest says. A plan with refusals must not be carried out; it lists all of them, not the first.
"""
from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from . import construction, difference, layouts
from .construction import Initialiser
from .difference import Correlation, Definition, SpecialChange, TypeChange, kind_class
from .errors import Refusal, Refused
from .layered import later
from .live import ImageSymbol, LiveData, LiveFunction, LiveState
from .names import LOCAL_SEPARATOR, TLS_RESERVE
from .objectmap import DataEntry, FunctionEntry, ObjectMap

_RESTART = "restart the program to get this change"
_OTHER_NAME = "give the new one another name, and copy what is needed by code"

# Every refusal: code -> (what is in the way, what to do instead).
_REFUSALS = {
    "compiler": ("was compiled by {old}, now by {new}: layouts and conventions may differ",
                 "use the compiler that the running program was built with"),
    "stubs": ("has {new}, the running image has {old}", "build with the settings of the running program"),
    "no-type-information": ("a header it includes changed, and without type information a changed layout cannot be seen",
                            "build with debug information (-g), which the tool adds by itself unless that was turned off"),
    "type-layout": ("the layout of type {name} changed ({how}), used by {objects}{variables}: what was made before the patch "
                    "has the old one",
                    "undo the change of layout, use up a HOTRELOAD_RESERVE that it has, or restart the program; a new type "
                    "beside the old one is fine"),
    "virtual-functions": ("the virtual functions of {name} changed: {what}; calls in old code go by the old table",
                          "declare new virtual functions behind all others, or restart the program"),
    "vtable": ("this table of virtual functions changed from {old} to {new} bytes, and cannot where it is: {why}",
               "make the new function not virtual, or restart the program"),
    "constructor": ("a constructor or destructor was added or changed ({functions}), and would never run",
                    "call it from a function that runs"),
    "constructor-removed": ("a constructor was removed that has run already, or a destructor that would still run at exit",
                            _RESTART),
    "linker-array": ("this linker-made array was {what}: the program walks over the one in its image, which cannot change",
                     _RESTART),
    "special-section": ("a section that the tool has no rule for was {what}", _RESTART),
    "static-local": ("cannot tell which static local of this name goes on with which value: {reason}",
                     "give each a name of its own, or change one function at a time"),
    "data-size": ("its size changed from {old} to {new} bytes, but it lives in the process as it was made", _OTHER_NAME),
    "data-align": ("its alignment changed from {old} to {new}, but it lives in the process as it was made", _OTHER_NAME),
    "data-kind": ("it was {old} and is {new} now, but it lives in the process as it was made", _OTHER_NAME),
    "data-type": ("its type changed from {old} to {new}, but it lives in the process as it was made", _OTHER_NAME),
    "tls-changed": ("a thread-local changed its {what}: threads that run, and new ones too, have it as the program was built",
                    "set it by code at the start of the thread, or give the new one another name"),
    "tls-new": ("a new thread-local {what}: threads that run have no room that holds it",
                "let it start as zero and set it by code, or use memory that the thread allocates"),
    "tls-initialiser": ("{what}: the compiler made one function that initialises all thread-locals of the unit, once for each "
                        "thread, and threads have run it", "put the new one into a source file of its own, or make it a static "
                        "thread-local of a function"),
    "kind": ("was a {old} and is a {new} now", "give the new one another name"),
    "not-patchable": ("the image has no stub for it: the linker took the copy of an object that is not instrumented",
                      "build all objects that define it with the tool, and restart the program"),
    "not-instrumented": ("is in the image already, in a part that is not instrumented",
                         "give the function another name, or build that part with the tool and restart the program"),
    "dynamic-initialiser": ("{what}",
                            "put the new object into a source file of its own or make it a static variable of a function; set "
                            "what lives by code in a function that runs; or restart the program"),
    "initialised-by-changed": ("{objects} is initialised before the patch goes in, by code that reaches {changed}, which this "
                               "patch changes: the old code would run",
                               "take the two edits one after the other: first without the new object"),
    "no-cxx-library": ("{objects} is initialised by code, and the running image has no C++ library, by which it could fail",
                       "restart the program"),
    "ifunc": ("the image chooses this function when it is loaded (IFUNC): there is no address to call",
              "call it through a function that already calls it"),
}

# Allocated sections whose change alone has no meaning for a running program: unwind tables travel with their functions,
# and notes describe the object.
KNOWN_SECTIONS = frozenset({".eh_frame", ".gcc_except_table", ".note.gnu.property", ".note.GNU-stack", ".note.gnu.build-id",
                            ".note.stapsdt", ".stapsdt.base", ".comment"})
_AT_START_OR_END = (".init_array", ".fini_array", ".preinit_array", ".ctors", ".dtors", ".init", ".fini")
_LENGTH = re.compile(r"\[\d*\]")
_C_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

_THREAD_FLAG = "__tls_guard"      # what GCC and clang call it
_CXX_LIBRARY = re.compile(r"lib(?:std)?c\+\+\.so")
_TLS_RESERVE_ALIGN = 16      # of runtime/image.c: hr_tls_reserve


class FunctionChange(NamedTuple):
    """A live function that gets a new body. Addresses are image-relative."""
    name: str
    object: str            # that defines it now
    entry: int             # its stub; stays
    slot: int
    old_body: int
    old_size: int
    why: str = "content"   # "content" | "names": a name it uses means something else now
                           # | "direct": its code jumps straight into the old body of a changed function
    head: int | None = None  # two bytes of the image's code that must be a jump


class NewFunction(NamedTuple):
    name: str
    object: str


class NewData(NamedTuple):
    name: str
    object: str
    kind: str
    size: int
    align: int
    extent: int


@dataclass(frozen=True)
class Update:
    """Something that takes new content where it is: a constant, or a variable whose initialiser changed."""
    name: str
    object: str
    was: str               # its old unique name
    address: int
    size: int              # bytes, now
    old_size: int          # bytes, before: what is behind them is padding that the object grows into
    kind: str              # "rodata" | "relro" | "data" | "bss"
    mode: str = "constant"  # "constant" | "merge": where it still holds the old initialiser | "reset": in any case
    type: str | None = None


class ThreadValue(NamedTuple):
    """The initial value of a new thread-local, for threads that run and threads to come."""
    name: str
    object: str
    address: int           # of its place in the image's TLS segment, image-relative
    size: int


# (object, function or variable as it lives, what a name of the new object is in the process) -> whether the change is
# noise (noise.py)
IsNoise = Callable[[str, LiveFunction | LiveData, Callable[[str], "Binding | None"]], bool]


class Binding(NamedTuple):
    """A name of the new objects that already lives in the process."""
    address: int           # image-relative; offset in the image's TLS segment if `kind` is "tls"
    was: str               # its old unique name
    kind: str              # "function" | "data" | "tls" | "symbol" (of an uninstrumented part)
    extent: int = 0        # bytes a variable may grow to
    slot: int | None = None


@dataclass
class Plan:
    """What one generation does to one image."""
    build_id: str
    changed: list[FunctionChange] = field(default_factory=list)
    added: list[NewFunction] = field(default_factory=list)       # new, and reached from something that runs
    removed: list[NewFunction] = field(default_factory=list)     # no longer in the source
    new_data: list[NewData] = field(default_factory=list)        # new, and reached
    updates: list[Update] = field(default_factory=list)
    bindings: dict[str, Binding] = field(default_factory=dict)   # of all objects in `brought`, by new name
    refusals: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)               # sentences for people
    objects: list[str] = field(default_factory=list)             # to be linked into the payload, in link order
    brought: list[ObjectMap] = field(default_factory=list)       # the object maps that the generation brings
    thread_values: list[ThreadValue] = field(default_factory=list)
    initialisers: list[Initialiser] = field(default_factory=list)    # run once before the commit, in this order

    @property
    def maps(self) -> list[str]:
        """The objects of `brought`."""
        return [m.object for m in self.brought]

    @property
    def empty(self) -> bool:
        """Whether the process would not run or hold anything new."""
        return not (self.changed or self.added or self.new_data or self.updates or self.initialisers or self.refusals)

    def check(self) -> None:
        """Raises Refused with all reasons if there is one."""
        if self.refusals:
            raise Refused(self.refusals)


def make_plan(live: LiveState, news: Mapping[str, ObjectMap | None], *,
              known_sections: Collection[str] = KNOWN_SECTIONS, init: str = "merge", is_noise: IsNoise | None = None) -> Plan:
    """The plan by which `live` becomes the program of the new maps.

    `news`: object -> its new map, for every object that was built anew (unchanged ones among them do no harm); None for
    one that is no longer part of the image. `known_sections` are those whose change needs nothing done. `init`, one of
    settings.INITIALISERS: what a living variable does with a changed initialiser. `is_noise` is asked of functions whose
    content changed and size did not: those of which it says so stay as they are.
    """
    work = _Work(live, news, known_sections, init)
    work.is_noise = is_noise
    work.correlate_static_locals()
    work.check_objects()
    work.check_types()
    work.classify_data()
    work.classify_functions()
    work.follow_names()
    work.follow_direct_jumps()
    work.plan_construction()
    work.collect_what_is_reached()
    work.check_what_is_reached()
    work.choose_objects()
    work.bind()
    work.tell()
    return work.plan


class _Work:
    """The steps of `make_plan`, in its order, and what they hand to each other."""

    def __init__(self, live: LiveState, news: Mapping[str, ObjectMap | None], known_sections: Collection[str],
                 init: str) -> None:
        self.live, self.known_sections, self.init = live, known_sections, init
        # An object that is as it was can't be part of a difference; its definitions still count in live.definitions.
        # One that left the image is an object without content from now on.
        self.is_noise: IsNoise | None = None
        self.noise: set[str] = set()                       # functions that differ only in what `is_noise` lets pass
        self.left = {obj for obj, new in news.items() if new is None}
        complete = {obj: _emptied(live.maps[obj]) if new is None else new for obj, new in news.items()
                    if new is not None or obj in live.maps}
        self.maps: dict[str, ObjectMap] = {obj: new for obj, new in complete.items()
                                           if (old := live.maps.get(obj)) is not new and old != new}
        self.plan = Plan(live.build_id)
        self.statics = Correlation()                       # of all objects
        self.redefined = live.redefined(self.maps)
        self.prevailing = {name: difference.prevailing(found) for name, found in self.redefined.items()}
        self.changed: dict[str, Definition] = {}           # functions
        self.continued: dict[str, LiveData] = {}           # new data name -> what it is in the process
        self.fresh: set[str] = set()                       # names that don't live in the process, though an old one may
        self.recaptured: dict[tuple[str, str], list[str]] = {}     # (what lambdas held, what they hold) -> new functions
        self.reached: dict[str, Definition] = {}           # new functions and data that the payload needs
        self.roots: list[str] = []                         # names that the initialisation of new objects refers to

    # ---- object by object ---------------------------------------------------------------------------------------

    def correlate_static_locals(self) -> None:
        for obj, new in self.maps.items():
            if obj in self.live.maps:
                found = difference.correlate(self.live.maps[obj], new, self.live.retired_statics.get(obj, {}).values())
                self.statics.pairs.update(found.pairs)
                self.statics.ambiguous += found.ambiguous
                self.statics.inherited.update(found.inherited)
        for unsure in self.statics.ambiguous:
            self._refuse("static-local", unsure.object, unsure.base, reason=unsure.reason)

    def check_objects(self) -> None:
        for obj, new in self.maps.items():
            old = self.live.maps.get(obj)
            for change in difference.compare_special(old, new):
                if change.section not in self.known_sections and not self._is_initialisation(old, new, change.section):
                    self._refuse_special(change, [r for s in new.special if s.section == change.section for r in s.refs])
            if old is None or obj in self.left or difference.compare(old, new).empty:
                continue
            for refuse in (self._check_compiler, self._check_stubs, self._check_type_information):
                refuse(old, new)

    def _check_compiler(self, old: ObjectMap, new: ObjectMap) -> None:
        if set(old.compiler) != set(new.compiler):
            self._refuse("compiler", new.object, "", old=_listed(old.compiler), new=_listed(new.compiler))

    def _check_stubs(self, old: ObjectMap, new: ObjectMap) -> None:
        if (old.stubs, old.machine) != (new.stubs, new.machine):
            self._refuse("stubs", new.object, "", old=f"{old.stubs} stubs for {old.machine}",
                         new=f"{new.stubs} stubs for {new.machine}")

    def _check_type_information(self, old: ObjectMap, new: ObjectMap) -> None:
        if old.typed and new.typed:
            return
        if old.headers is not None and new.headers is not None and old.headers != new.headers:
            self._refuse("no-type-information", new.object, "")
        else:
            self.plan.notes.append(f"{new.object} carries no type information: a changed layout of its types could not be seen")

    def _is_initialisation(self, old: ObjectMap | None, new: ObjectMap, section: str) -> bool:
        """Whether all that changed is code that initialises variables: `plan_construction` looks at that."""
        was, now = construction.constructors(old, section), construction.constructors(new, section)
        return was is not None and was == now

    def _refuse_special(self, change: SpecialChange, refs: Collection[str]) -> None:
        code = "special-section"
        if change.section.startswith(_AT_START_OR_END):
            code = "constructor-removed" if change.what == "removed" else "constructor"
        elif _C_IDENTIFIER.match(change.section):
            code = "linker-array"
        functions = _listed([_plain(r) for r in refs if not construction.is_initialiser(r)])
        self._refuse(code, change.object, change.section, what=change.what, functions=functions)

    def check_types(self) -> None:
        olds = {obj: self.live.maps[obj] for obj in self.maps if obj in self.live.maps}
        changes: dict[str, list[TypeChange]] = {}
        for change in difference.layout_changes(olds, self.maps, _Elsewhere(self.live, self.maps.keys())):
            changes.setdefault(change.name, []).append(change)
        for change in difference.returned_types(self.live.past_types, self.live.types, self.maps):
            changes.setdefault(change.name, [change])
        for name in [n for n in changes if not self.live.may_know_type(n)]:
            self.plan.notes.append(f"{name} has another layout; the process has no code that knows it, and so no object of it")
            del changes[name]
        wrong = {name: found for name, found in changes.items() if not all(c.compatible for c in found)}
        self.plan.notes += [c.compatible.note for name in sorted(changes.keys() - wrong.keys())
                            for c in changes[name][:1] if c.compatible]
        for name in difference.worth_telling(wrong):
            first = next(c for c in wrong[name] if not c.compatible)
            self._refuse("type-layout", wrong[name][0].object, name or "(unnamed)",
                         how=layouts.explain(first.old_layout, first.new_layout),
                         objects=_listed([c.object for c in wrong[name]]), variables=self._variables_of(name))
        virtual_changes = difference.virtual_changes(self.live.maps, self.maps, self.live.virtuals_of)
        for virtual in {c.name: c for c in reversed(virtual_changes)}.values():
            self._refuse("virtual-functions", virtual.object, virtual.name, what=virtual.what)

    def _variables_of(self, type_name: str) -> str:
        found = [_plain(d.name) for d in self.live.data.values() if d.type and difference.mentions(d.type, type_name)]
        return f", held by {_listed(found)}" if found else ""

    # ---- data ---------------------------------------------------------------------------------------------------

    def classify_data(self) -> None:
        unsure = self.statics.ambiguous_names
        for name, definition in self.prevailing.items():
            if definition is None or name in unsure:
                continue
            obj, entry = definition
            if not isinstance(entry, DataEntry):
                continue
            if name in self.live.functions and self.live.definitions.get(name):
                self._refuse("kind", obj, name, old="function", new="variable")
                continue
            was = self._live_data(entry)
            if was is None:
                self.fresh.add(name)
            else:
                self.continued[name] = was
                self._compare_with_live(obj, entry, was)

    def _live_data(self, entry: DataEntry) -> LiveData | None:
        old_name = self.statics.pairs.get(entry.name, "") if entry.static_local else entry.name
        was = self.live.data.get(old_name)
        if was is None or was.retired is None:
            return was
        if _differences(was, entry):
            return None
        self.plan.notes.append(f"{entry.symbol} is back and goes on with the value it had")
        return was

    def _compare_with_live(self, obj: str, entry: DataEntry, was: LiveData) -> None:
        differences = _differences(was, entry)
        if not differences:
            return
        if self._fits(was, entry):
            differences = {"content": ("", "")}
        elif difference.is_vtable(entry) and "size" in differences:
            why = self._vtable_in_the_way(obj, entry, was)
            if why:
                self._refuse("vtable", obj, entry.name, old=str(was.size), new=str(entry.size), why=why)
                return
            differences = {"content": ("", "")}
        if kind_class(was.kind) == "thread-local":
            self._refuse("tls-changed", obj, entry.name, what=", ".join(differences))
        elif set(differences) != {"content"}:
            for aspect in differences.keys() - {"content"}:
                old, new = differences[aspect]
                self._refuse(f"data-{aspect}", obj, entry.name, old=old, new=new)
        elif (entry.name, entry.size) != (was.name, was.size) or self.is_noise is None \
                or not self.is_noise(obj, was, self._binding):
            self._update(obj, entry, was)

    def _fits(self, was: LiveData, entry: DataEntry) -> bool:
        """Whether all that changed is the length of an array, and the new one fits where the old one is."""
        changed = _differences(was, entry).keys() - {"content"}
        if "size" not in changed or changed - {"size", "type", "align"} or not _same_elements(was.type, entry.type):
            return False
        return was.address % entry.align == 0 and entry.size <= self._room(was)

    def _vtable_in_the_way(self, obj: str, entry: DataEntry, was: LiveData) -> str | None:
        """Why a table of virtual functions cannot take its new functions; None if it can. That all others keep their places
        is checked by `check_types`."""
        foreign = self.live.foreign_vtables()
        old = self.live.maps.get(obj)
        if entry.size < was.size:
            return "old code may call the functions that left"
        if was.extent <= was.size:
            return "it consists of several tables, one behind the other"
        if entry.size > self._room(was) or was.address % entry.align:
            return f"there is room for {self._room(was)} bytes"
        if not (old and old.typed and self.maps[obj].typed):
            return "without type information it cannot be seen whether the others keep their places"
        return f"{_plain(foreign[0])} is not instrumented, and may be the table of a derived class" if foreign else None

    def _room(self, was: LiveData) -> int:
        """Bytes a variable may take. Its padding is not trusted where the linker chose a copy that has none."""
        behind = self.live.symbols_between(was.address + was.size, was.address + was.extent)
        return min([was.extent, *(a - was.address for a in behind)])

    # ---- functions ----------------------------------------------------------------------------------------------

    def classify_functions(self) -> None:
        for name, definition in self.prevailing.items():
            if definition is None:
                self._note_gone(name)
            elif isinstance(definition.entry, FunctionEntry):
                self._classify_function(definition.object, definition.entry)

    def _note_gone(self, name: str) -> None:
        was = self.live.functions.get(name)
        if was is not None:
            self.plan.removed.append(NewFunction(name, was.object))

    def _classify_function(self, obj: str, entry: FunctionEntry) -> None:
        name, was = entry.name, self.live.functions.get(entry.name)
        if name in self.live.data and self.live.data[name].retired is None:
            self._refuse("kind", obj, name, old="variable", new="function")
        elif was is None and _is_strong(entry) and name in self.live.symbols:
            self._refuse("not-instrumented", obj, name)
        elif was is None:
            self.fresh.add(name)
        elif was.signature and entry.signature and was.signature != entry.signature \
                and (was.digest != entry.digest or _held(was.signature) != _held(entry.signature)):
            self._replace(entry, was)
        elif was.digest != entry.digest and self._differs_in_noise(obj, entry, was):
            self.noise.add(name)
        elif was.digest != entry.digest:
            self._change(obj, entry, was, "content")
        elif name not in self.live.definitions:
            self._change(obj, entry, was, "names")      # it comes back: its variables may not be where its old code has them

    def _differs_in_noise(self, obj: str, entry: FunctionEntry, was: LiveFunction) -> bool:
        return self.is_noise is not None and was.size + was.lead == entry.size and was.body is not None \
            and self.is_noise(obj, was, self._binding)

    def _change(self, obj: str, entry: FunctionEntry, was: LiveFunction, why: str) -> None:
        if was.slot is None or was.body is None:
            self._refuse("not-patchable", obj, entry.name)
            return
        self.changed[entry.name] = Definition(obj, entry)
        self.plan.changed.append(FunctionChange(entry.name, obj, was.entry, was.slot, was.body, was.size, why, was.head))

    def _replace(self, entry: FunctionEntry, was: LiveFunction) -> None:
        """Another signature makes another function: it gets a stub of its own, to which all that refers to it by name is
        linked anew. Frames on stacks and pointers in variables go on with the old stub, and so the old code.

        Of functions that work with a lambda whose captures changed, those are replaced too whose own code did not change:
        else the old ones would hand old objects to new code."""
        self.fresh.add(entry.name)
        old, _, _ = (was.signature or "").partition(_WITH)
        new, _, _ = (entry.signature or "").partition(_WITH)
        held, holds = _held(was.signature), _held(entry.signature)
        if held != holds:
            self.recaptured.setdefault((held, holds), []).append(entry.symbol)
        else:
            self.plan.notes.append(_other_signature(entry.symbol, old, new))

    def follow_names(self) -> None:
        """Code that is as it was must be linked anew if a name in it means something else: a variable that comes back
        as a new one, a function that takes the place of a library's or gives way to it."""
        gone = {name for name, definition in self.prevailing.items() if definition is None}
        moved = gone.union(name for name in self.fresh if not self._lives(name))
        if not moved:
            return
        importers = {o: self.live.maps[o] for o in self.live.importers(moved) if o not in self.maps}
        elsewhere = {o: m for o, m in importers.items() if not moved.isdisjoint(m.imports)}
        for obj, m in {**self.maps, **elsewhere}.items():
            for entry in difference.entries(m):
                if not moved.isdisjoint(entry.refs) and entry.name not in self.changed:
                    self._link_anew(Definition(obj, entry))

    def _link_anew(self, definition: Definition) -> None:
        obj, entry = definition
        if self._definition(entry.name) != definition or entry.name in self.fresh:
            return
        if isinstance(entry, FunctionEntry):
            was = self.live.functions.get(entry.name)
            if was is not None:
                self._change(obj, entry, was, "names")
        elif entry.name not in {u.name for u in self.plan.updates}:
            data = self.continued.get(entry.name) or self.live.data.get(entry.name)
            if data is not None and data.digest == entry.digest:
                self._update(obj, entry, data)

    def _update(self, obj: str, entry: DataEntry, was: LiveData) -> None:
        update = Update(entry.name, obj, was.name, was.address, entry.size, was.size, was.kind, "constant", entry.type)
        if kind_class(was.kind) == "writable":
            if self.init == "keep" and entry.size <= was.size:
                self.plan.notes.append(f"{entry.symbol} keeps its live value: only its initial value changed")
                return
            update = replace(update, mode=self.init)
        elif kind_class(was.kind) != "constant":
            return
        self.plan.updates.append(update)
        if entry.size != was.size:
            self.plan.notes.append(f"{entry.symbol} has {entry.size} bytes now, it had {was.size}; it stays where it is")

    def follow_direct_jumps(self) -> None:
        """Code that jumps into another function's body without a relocation goes past the stub: it must be replaced
        together with what it jumps to. The assembler does that only inside one object."""
        targets = {name for name, d in self.prevailing.items() if name in self.changed or d is None}
        pending = {obj for name in targets for obj in self._definers(name)}
        for obj in sorted(o for o in pending if o in self.live.maps):
            m = self.maps.get(obj) or self.live.maps[obj]
            grew = True
            while grew:
                jumping = [f for f in m.functions if not targets.isdisjoint(f.direct) and f.name not in targets]
                grew = bool(jumping)
                for function in jumping:
                    targets.add(function.name)
                    was = self.live.functions.get(function.name)
                    if was is not None and was.object == obj:
                        self._change(obj, function, was, "direct")

    def _definers(self, name: str) -> list[str]:
        was = self.live.functions.get(name)
        return [d.object for d in self.live.definitions.get(name, ())] + ([was.object] if was else [])

    # ---- objects that code initialises -----------------------------------------------------------------------------

    def plan_construction(self) -> None:
        """Choose the code that initialises new objects. It runs before the commit, so nothing that it calls may change."""
        groups: set[str] = set()
        for obj in sorted(self.maps.keys() - self.left):
            found = construction.judge(self.live.maps.get(obj), self.maps[obj], self._known, groups, self.noise)
            for name, reason in found.refusals:
                self._refuse("dynamic-initialiser", obj, name, what=reason)
            objects = _listed([d.symbol for d in found.objects]) if found.objects else "what leaves no variable"
            changed = self._changed_among(found)
            if changed:
                self._refuse("initialised-by-changed", obj, "", objects=objects, changed=_listed(changed))
            if found.run and not self._has_cxx_library():
                self._refuse("no-cxx-library", obj, "", objects=objects)
            if found.run:
                self.plan.notes.append(f"{obj}: initialises {objects}, once, before the patch goes in")
            self.plan.notes += found.notes
            self.plan.initialisers += found.run
            self.roots += [i.function for i in found.run if i.function] + found.refs
            groups.update(i.group for i in found.run if i.group)

    def _has_cxx_library(self) -> bool:
        return "__gxx_personality_v0" in self.live.symbols or any(map(_CXX_LIBRARY.match, self.live.facts.needed))

    def _known(self, name: str) -> Literal["new", "living", "back"]:
        if not self._lives(name):
            return "new"
        was = self.continued.get(name)
        return "back" if was is not None and was.retired is not None else "living"

    def _changed_among(self, found: construction.Verdict) -> list[str]:
        """What the initialisation reaches, itself apart, and is not yet in the process as the new source has it."""
        changes = {*self.changed, *(u.name for u in self.plan.updates)} - {i.function for i in found.run}
        seen = set(found.refs)
        for name in (pending := list(seen)):
            definition = self._definition(name) if changes else None
            new = {r for r in _refs(definition.entry) if r not in seen} if definition else set()
            seen |= new
            pending += new
        return sorted(_plain(name) for name in seen & changes)

    # ---- what is new and needed ------------------------------------------------------------------------------------

    def collect_what_is_reached(self) -> None:
        """Follow references from all that changes. What does not live in the process and nobody reaches stays out."""
        updated = [d for u in self.plan.updates if (d := self._definition(u.name)) is not None]
        pending = [r for d in (*self.changed.values(), *updated) for r in _refs(d.entry)] + self.roots
        while pending:
            ref = pending.pop()
            definition = self._definition(ref)
            if definition is not None and ref not in self.reached and not self._lives(ref):
                self.reached[ref] = definition
                pending += _refs(definition.entry)
        self.place_thread_locals()
        for name, definition in self.reached.items():
            entry = definition.entry
            if isinstance(entry, FunctionEntry):
                self.plan.added.append(NewFunction(name, definition.object))
            else:
                self.plan.new_data.append(NewData(name, definition.object, entry.kind, entry.size, entry.align, entry.extent))

    def place_thread_locals(self) -> None:
        """New thread-locals go into the room that the runtime keeps in every thread's block."""
        reserve = self.live.tls_reserve()
        wanted = [d.entry for d in self.reached.values() if isinstance(d.entry, DataEntry)]
        if reserve is None or not any(kind_class(e.kind) == "thread-local" for e in wanted):
            return
        end = reserve.address + reserve.size
        taken = [d.address + d.extent for d in later(self.live.data).values() if reserve.address <= d.address < end
                 and kind_class(d.kind) == "thread-local"]
        free = max(taken, default=reserve.address)
        for name, (obj, entry) in list(self.reached.items()):
            if isinstance(entry, DataEntry) and self._may_be_placed(entry, reserve):
                at = free + -free % entry.align
                if at + entry.size <= end and entry.align <= _TLS_RESERVE_ALIGN:
                    del self.reached[name]
                    self.plan.bindings[name] = Binding(at, TLS_RESERVE, "tls", entry.size)
                    self.plan.new_data.append(NewData(name, obj, entry.kind, entry.size, entry.align, entry.size))
                    if entry.kind == "tdata" and self.live.facts.tls is not None:
                        place = self.live.facts.tls.address + at
                        self.plan.thread_values.append(ThreadValue(name, obj, place, entry.size))
                    free = at + entry.size

    def _may_be_placed(self, entry: DataEntry, reserve: ImageSymbol) -> bool:
        """Values are for programs alone: a library's block may be in some threads only."""
        takes_values = self.live.kind != "shared" and reserve.section.startswith(".tdata")
        return entry.kind == "tbss" or entry.kind == "tdata" and takes_values

    def _definition(self, name: str) -> Definition | None:
        if name in self.prevailing:
            return self.prevailing[name]
        return difference.prevailing(self.live.definitions.get(name, ()))

    def _lives(self, name: str) -> bool:
        """Whether a new object's `name` is something in the process. A weak or COMDAT symbol is, in whatever part."""
        if name in self.continued or name in self.statics.ambiguous_names:
            return True
        in_image = name in self.live.symbols or name in self.live.tls_symbols
        if name in self.fresh:
            return in_image
        return in_image or name in self.live.functions or name in self.live.data

    def _why_not_placed(self, entry: DataEntry) -> str:
        if entry.kind == "tdata" and self.live.kind == "shared":
            return "with an initial value, in a library"
        return f"of {entry.size} bytes, aligned to {entry.align}"

    def check_thread_initialisers(self) -> None:
        """A unit has one function that initialises its thread-locals, and one flag for each thread that says it has run.
        That function may be inlined, so whoever looks at the flag may initialise all that it refers to."""
        for name, (obj, entry) in {**self.changed, **self.reached}.items():
            mine = {d.name: d for d in self.maps[obj].data if kind_class(d.kind) == "thread-local"} if obj in self.maps else {}
            used = [mine[r] for r in _refs(entry) if r in mine]
            flags = [self._known(d.name) for d in used if d.symbol == _THREAD_FLAG]
            wrong = [d.symbol for d in used if flags and d.symbol != _THREAD_FLAG
                     and (self._known(d.name) == "new") != (flags[0] == "new")]
            if wrong and flags[0] == "new":
                self._refuse("tls-initialiser", obj, name, what=f"{_listed(wrong)} lives, and might be initialised again")
            elif wrong:
                self._refuse("tls-initialiser", obj, name, what=f"{_listed(wrong)} is new")

    def check_what_is_reached(self) -> None:
        self.check_thread_initialisers()
        for name, (obj, entry) in self.reached.items():
            if isinstance(entry, DataEntry) and kind_class(entry.kind) == "thread-local":
                self._refuse("tls-new", obj, name, what=self._why_not_placed(entry))
        for obj, name in self._imports_of_ifuncs():
            self._refuse("ifunc", obj, name)

    def _imports_of_ifuncs(self) -> list[tuple[str, str]]:
        if not self.live.ifuncs:
            return []
        needed = [*self.changed.values(), *self.reached.values()]
        return sorted({(d.object, ref) for d in needed for ref in _refs(d.entry) if ref in self.live.ifuncs})

    # ---- what to link, and against what ------------------------------------------------------------------------------

    def choose_objects(self) -> None:
        needed = {d.object for d in (*self.changed.values(), *self.reached.values())} | {u.object for u in self.plan.updates}
        needed |= {i.object for i in self.plan.initialisers}
        position = self.live.order
        self.plan.objects = sorted(needed, key=lambda o: (position.get(o, len(position)), o))
        self.plan.brought = [self.maps.get(o) or self.live.maps[o] for o in self.plan.objects]
        self.plan.brought += [m for o, m in self.maps.items() if o not in needed]

    def bind(self) -> None:
        """Bind what the objects define and what they refer to. Objects that are not linked take part, so that the next
        generation finds their variables under their new names."""
        for m in self.plan.brought:
            names = {e.name for e in difference.entries(m)}
            for entry in difference.entries(m):
                names.update(_refs(entry))
            for name in sorted(names.union(m.imports) - self.plan.bindings.keys() - self.reached.keys()):
                found = self._binding(name)
                if found is not None:
                    self.plan.bindings[name] = found

    def _binding(self, name: str) -> Binding | None:
        live = self.live
        data = self.continued.get(name) or (None if name in self.fresh else live.data.get(name))
        if name in self.statics.ambiguous_names:
            return None
        defined = self._definition(name) is not None     # else a library may define it now, and not what was removed
        if defined and data is not None:
            return Binding(data.address, data.name, "tls" if kind_class(data.kind) == "thread-local" else "data", data.extent)
        if defined and name in live.functions and name not in self.fresh:
            function = live.functions[name]
            return Binding(function.entry, name, "function", slot=function.slot)
        return self._binding_to_uninstrumented(name)

    def _binding_to_uninstrumented(self, name: str) -> Binding | None:
        """A name in a part of the image that is not instrumented. What a new object defines too (inline functions and
        variables of C++) is that one thing, so that it has one address and one value."""
        address, definition = self.live.symbols.get(name), self._definition(name)
        if address is None:
            offset = self.live.tls_symbols.get(name)
            return None if offset is None else Binding(offset, name, "tls")
        if definition is None:
            return Binding(address, name, "symbol")
        if isinstance(definition.entry, FunctionEntry):
            return Binding(address, name, "function")
        return Binding(address, name, "data", definition.entry.size)

    # ---- words ------------------------------------------------------------------------------------------------------

    def tell(self) -> None:
        self.plan.notes += [_other_captures(*changed, symbols) for changed, symbols in self.recaptured.items()]
        plan, notes = self.plan, self.plan.notes
        at_start = {ref for m in self.maps.values() for special in m.special for ref in special.refs}
        for name, (_, entry) in self.changed.items():
            if construction.is_initialiser(entry.symbol):
                continue
            if entry.symbol == "main" or name in at_start or entry.section.startswith(".text.startup"):
                notes.append(f"{entry.symbol} runs once, when the program starts: "
                             "its new code takes effect at its next call, if there is one")
        removed = [_plain(f.name) for f in plan.removed if not construction.is_initialiser(f.name)]
        if removed:
            notes.append(f"no longer in the source: {_listed(removed)}; "
                         "old callers and stored pointers go on using the old code")
        notes += self.statics.inherited.values()
        noise = len(self.noise - self.changed.keys())
        if noise:
            notes.append(f"{noise} function{' differs' if noise == 1 else 's differ'} only in line numbers, and stay"
                         f"{'s' if noise == 1 else ''} as {'it is' if noise == 1 else 'they are'}")
        idle = sorted(n for n in self.fresh - self.reached.keys() if n not in plan.bindings and self._is_new_name(n))
        if idle:
            notes.append(f"new, but nothing that runs refers to it yet: {_listed([_plain(n) for n in idle])}")

    def _is_new_name(self, name: str) -> bool:
        return name not in self.live.definitions

    def _refuse(self, code: str, obj: str, name: str, **words: str) -> None:
        reason, advice = _REFUSALS[code]
        self.plan.refusals.append(Refusal(code, obj, name, reason.format(name=name, **words), advice))


class _Elsewhere(Container[str]):
    """Digests of types that objects use which are not being compared."""

    def __init__(self, live: LiveState, compared: Set[str]) -> None:
        self.live, self.compared = live, compared

    def __contains__(self, signature: object) -> bool:
        return not self.live.types.get(str(signature), frozenset()) <= self.compared


def _differences(was: LiveData, entry: DataEntry) -> dict[str, tuple[str, str]]:
    """What sets a variable in the process apart from its new definition: aspect -> (old, new), for people."""
    known_types = was.type is not None and entry.type is not None
    aspects = {
        "size": (was.size, entry.size),
        "align": (was.align, entry.align) if _is_misplaced(was, entry) else ("", ""),
        "kind": (kind_class(was.kind), kind_class(entry.kind)),
        "type": (was.type, entry.type) if known_types else ("", ""),
        "content": (was.digest, entry.digest),
    }
    return {aspect: (str(old), str(new)) for aspect, (old, new) in aspects.items() if old != new}


def _is_misplaced(was: LiveData, entry: DataEntry) -> bool:
    """Whether code of the new definition may rely on an alignment that the address does not have. Compilers align the same
    variable more or less as they see fit. Of thread-locals only the offset is known."""
    return entry.align > was.align if kind_class(was.kind) == "thread-local" else was.address % max(entry.align, 1) != 0


def _emptied(m: ObjectMap) -> ObjectMap:
    return dataclasses.replace(m, functions=[], data=[], types={}, layouts={}, virtuals={}, imports=[], special=[])


def _same_elements(old: str | None, new: str | None) -> bool:
    """Whether two printed types are arrays of one element type; a type that is not known could be anything."""
    if old is None or new is None:
        return False
    element, length = (_LENGTH.sub("", t, count=1) for t in (old, new)), _LENGTH.search(old)
    return length is not None and len(set(element)) == 1


def _refs(entry: FunctionEntry | DataEntry) -> Iterable[str]:
    return [*entry.refs, *entry.direct] if isinstance(entry, FunctionEntry) else entry.refs


def _is_strong(entry: FunctionEntry) -> bool:
    return entry.comdat is None and entry.binding == "global"


def _plain(name: str) -> str:
    return name.partition(LOCAL_SEPARATOR)[0]


_WITH = ", with "        # before what lambdas and local classes hold: DebugTypes.signature


def _held(signature: str | None) -> str:
    return (signature or "").partition(_WITH)[2]


def _other_signature(symbol: str, old: str, new: str) -> str:
    """Of C++ functions, "int ()", the signature tells what they return."""
    if old.endswith("()") and new.endswith("()"):
        old, new = f"which returns {old[:-2].rstrip()}", f"which returns {new[:-2].rstrip()}"
    return (f"{symbol} is a new function, {new}; calls under way, and pointers that the program has stored, stay with the old "
            f"one, {old}")


def _other_captures(held: str, holds: str, symbols: Collection[str]) -> str:
    return (f"lambdas or local classes hold {holds or 'nothing'} now, and held {held or 'nothing'}: what works with them is new "
            f"({_listed(symbols, 2)}); those that were made before, and calls under way, stay with the old code")


def _listed(names: Collection[str], most: int = 8) -> str:
    """A list for people, never longer than a line or two."""
    shown = list(names)[:most]
    more = len(names) - len(shown)
    return (", ".join(shown) or "nothing known") + (f" and {more} more" if more > 0 else "")
