"""Each check of `hotpatch verify` rejects a bundle in which exactly its property is broken, and lets the good one pass."""
from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import stubkind
from bundles import Broken, Made, case_of, make, named
from casetools import CASES, Configuration, read_case

from hotreload_tool import abi
from hotreload_tool.arch.x86_64 import HEAD_ROOM, HEAD_STUB_SIZE
from hotreload_tool.verify import Given, frames, heads, transience, verify
from hotreload_tool.verify.linked import DT_RELASZ, DT_STRSZ, DT_STRTAB
from hotreload_tool.verify.redirects import _targets
from hotreload_tool.verify.tables import R_64, R_GLOB_DAT, R_JUMP_SLOT, R_RELATIVE
from hotreload_tool.verify.verdict import CHECKS

_IMPORTS = (R_64, R_GLOB_DAT, R_JUMP_SLOT)
HEADS = stubkind.KIND == "entry"
OF_A_BUNDLE = [name for name in CHECKS if not name.startswith(("completeness-", "live-", "signature"))]


@dataclass(frozen=True)
class Mutation:
    check: str
    what: str
    change: Callable[[Broken], object]
    also: frozenset[str] = frozenset()      # checks that this cannot but break as well
    generation: int = 1


MUTATIONS: list[Mutation] = []


def breaks(check: str, *also: str, generation: int = 1) -> Callable[[Callable[[Broken], object]], Callable[[Broken], object]]:
    def register(change: Callable[[Broken], object]) -> Callable[[Broken], object]:
        MUTATIONS.append(Mutation(check, change.__name__, change, frozenset(also), generation))
        return change
    return register


# ---- the file ---------------------------------------------------------------------------------------------------


@breaks("archive")
def extra_member(b: Broken) -> None:
    b.extra = [("readme", b"hello")]


@breaks("archive")
def member_with_a_path(b: Broken) -> None:
    b.extra = [("../payload-1.so", b""), ("maps-1.json", b"[]")]


@breaks("archive")
def payload_without_maps(b: Broken) -> None:
    b.extra = [("payload-1.so", b""), ("payload-2.so", b"")]


@breaks("archive")
def bytes_before(b: Broken) -> None:
    b.prefix = b"#!/bin/sh\n"


@breaks("archive")
def bytes_behind(b: Broken) -> None:
    b.comment = b"something else"


@breaks("manifest-schema")
def unknown_kind(b: Broken) -> None:
    b.entry["kind"] = "other"


@breaks("manifest-schema")
def unknown_field(b: Broken) -> None:
    b.entry["trusted"] = "yes"


@breaks("manifest-schema")
def more_images_than_payloads(b: Broken) -> None:
    b.manifest["images"].append(dict(b.entry, build_id="00" * 20))


@breaks("payload-hash")
def a_byte_of_the_payload(b: Broken) -> None:
    b.payload[-1] ^= 1
    b.keep_hashes = True


@breaks("maps-hash")
def white_space_in_maps(b: Broken) -> None:
    b.maps += b" "
    b.keep_hashes = True


@breaks("maps-hash", "generation-id")
def maps_of_nothing(b: Broken) -> None:
    b.maps = b"{}"


@breaks("generation-id")
def an_id_of_its_own(b: Broken) -> None:
    b.entry["id"] = "ab" * 32
    b.write_identity()


@breaks("generation-id")
def other_maps_under_the_id(b: Broken) -> None:
    maps = json.loads(b.maps)
    maps[0]["functions"].pop()
    b.maps = json.dumps(maps).encode()


@breaks("generation-chain", generation=2)
def a_generation_left_out(b: Broken) -> None:
    b.identify(generation=3)


# ---- the payload by itself --------------------------------------------------------------------------------------


@breaks("payload-elf")
def other_machine(b: Broken) -> None:
    struct.pack_into("<H", b.payload, 18, 183)


@breaks("payload-elf")
def absolute_for_a_movable_image(b: Broken) -> None:
    struct.pack_into("<H", b.payload, 16, 2)


@breaks("payload-elf")
def truncated(b: Broken) -> None:
    del b.payload[len(b.payload) // 2:]


@breaks("payload-header")
def other_generation_in_the_payload(b: Broken) -> None:
    b.set_word(b.file.entry + 16, 7)


@breaks("payload-header")
def other_parent_in_the_payload(b: Broken) -> None:
    b.write(b.file.entry + 56, b"\1" * 32)


@breaks("payload-header")
def flags_without_a_meaning(b: Broken) -> None:
    b.write(b.file.entry + abi.PAYLOAD_HEAD.size - 4, struct.pack("<I", 0xFFFFFFF8))


@breaks("canonical-form")
def bytes_between_the_sections(b: Broken) -> None:
    text = next(s for s in b.file.sections if s.name == ".text")
    b.payload[text.offset + text.size + 16] = 1


@breaks("canonical-form")
def bytes_behind_the_sections(b: Broken) -> None:
    b.payload += bytes(8)


@breaks("canonical-form")
def bits_of_a_segment_that_mean_nothing(b: Broken) -> None:
    b.set_header(b.header_of("PT_LOAD", 5), flags=5 | 0x7F0000)


@breaks("canonical-form")
def memory_without_a_section(b: Broken) -> None:
    number = b.header_of("PT_LOAD", 6)
    b.set_header(number, size=b.header(number)[6] + 8)


@breaks("canonical-form")
def names_an_index_that_is_not_used(b: Broken) -> None:
    at = b.relocation_of_type(R_RELATIVE) + 8
    b.set_word(at, 1 << 32 | R_RELATIVE)


@breaks("canonical-form")
def another_table_of_relocations(b: Broken) -> None:
    """Behind the first: the agent takes the last one said, other readers the first."""
    at = b.dynamic(0x6FFFFFF9) - 8                  # DT_RELACOUNT, which is for ld.so
    b.set_word(at, DT_RELASZ)
    b.set_word(at + 8, 24)


@breaks("canonical-form")
def relocates_one_word_twice(b: Broken) -> None:
    """Half of it: what looks for a relocation at the word itself does not meet the other one."""
    b.set_word(b.relocation_of_type(*_IMPORTS), b.entry["added"][0]["slot"] + 4)


@breaks("canonical-form")
def relocates_a_number(b: Broken) -> None:
    """The size of the old code would be an address, whatever the file says."""
    b.set_word(b.relocation_of_type(*_IMPORTS), b.row("redirects", 0, 5) + 24)


@breaks("canonical-form")
def a_section_lies_elsewhere(b: Broken) -> None:
    number = next(i for i, s in enumerate(b.file.sections) if s.name == ".rodata")
    start, = struct.unpack_from("<Q", b.payload, 40)
    at = start + 64 * number + 16                   # sh_addr
    struct.pack_into("<Q", b.payload, at, struct.unpack_from("<Q", b.payload, at)[0] - 4096)


@breaks("canonical-form", "imports")
def leaves_the_versions_out(b: Broken) -> None:
    """Any version would do, and the agent would look for none."""
    b.set_word(b.dynamic(0x6FFFFFF0), 0)            # DT_VERSYM


@breaks("canonical-form", "imports", "relocation-kinds", "no-exports")
def a_version_without_a_name(b: Broken) -> None:
    start = b.file.tag(DT_STRTAB)
    b.write(start + b.file.read(start, b.file.tag(DT_STRSZ)).index(b"GLIBC_2.2.5"), bytes(11))


@breaks("segments-layout", "canonical-form")
def more_in_the_file_than_in_memory(b: Broken) -> None:
    number = b.header_of("PT_LOAD", 5)
    b.set_header(number, file_size=b.header(number)[6] + 8)


@breaks("segments-protection", "canonical-form")
def writable_code(b: Broken) -> None:
    b.set_header(b.header_of("PT_LOAD", 5), flags=7)


@breaks("segments-protection")
def unreadable_code(b: Broken) -> None:
    b.set_header(b.header_of("PT_LOAD", 5), flags=1)


@breaks("executable-stack")
def asks_for_an_executable_stack(b: Broken) -> None:
    b.set_header(b.header_of("PT_GNU_STACK"), flags=7)


@breaks("executable-stack", "canonical-form")
def does_not_speak_of_the_stack(b: Broken) -> None:
    b.set_header(b.header_of("PT_GNU_STACK"), type=0)


@breaks("text-relocations")
def announces_text_relocations(b: Broken) -> None:
    b.set_word(b.dynamic(30), b.file.tag(30) | 4)


@breaks("text-relocations", "relocation-places")
def relocates_code(b: Broken) -> None:
    b.set_word(b.relocation_of_type(*_IMPORTS), b.tables.redirects[0].new)


@breaks("relocation-places")
def relocates_the_image(b: Broken) -> None:
    b.set_word(b.relocation_of_type(*_IMPORTS), b.tables.redirects[0].slot)


@breaks("relocation-kinds", "canonical-form")
def copies_at_load(b: Broken) -> None:
    at = b.relocation_of_type(*_IMPORTS) + 8
    b.set_word(at, int.from_bytes(b.read(at, 8), "little") & ~0xFFFFFFFF | 5)


@breaks("relocation-kinds", "data-updates", "manifest-agrees")
def points_into_nothing(b: Broken) -> None:
    b.set_pointer(b.row("updates", 0, 5), 0x7000000000)


@breaks("no-start-code", "tables")
def names_constructors(b: Broken) -> None:
    b.set_count("init_array", 1)


@breaks("no-start-code")
def has_an_init_function(b: Broken) -> None:
    b.set_word(b.dynamic(0x6FFFFFFB) - 8, 12)      # DT_FLAGS_1 becomes DT_INIT


@breaks("canonical-form", "imports")
def defines_for_itself_what_it_imported(b: Broken) -> None:
    """A local symbol is nothing that others could bind to; but the agent would take its value."""
    b.write(b.symbol("strlen") + 4, b"\0\0" + struct.pack("<H", 1))


@breaks("no-exports", "imports", "canonical-form")
def defines_what_it_imported(b: Broken) -> None:
    b.write(b.symbol("strlen") + 6, struct.pack("<H", 1))


@breaks("tables", "canonical-form")
def tables_stay_writable(b: Broken) -> None:
    b.set_header(b.header_of("PT_GNU_RELRO"), size=0)


@breaks("tables", "old-code-parts")
def part_of_no_redirect(b: Broken) -> None:
    b.set_word(b.row("parts", 0, 3) + 16, 99)


@breaks("redirect-new-code")
def leads_into_the_middle(b: Broken) -> None:
    at = b.row("redirects", 0, 5)
    change = named(b.entry["changed"], b.entry["changed"][0]["name"])
    redirect = b.tables.redirects[0]
    change = next(c for c in b.entry["changed"] if c["slot"] == redirect.slot)
    change["body"] += 4
    b.set_pointer(at + 16, redirect.new + 4)


@breaks("redirect-new-code", "manifest-agrees")
def leads_to_another_function(b: Broken) -> None:
    one, two = b.tables.redirects[:2]
    for number, other in ((0, two), (1, one)):
        at = b.row("redirects", number, 5)
        b.set_pointer(at + 16, other.new)
        b.set_word(at + 32, other.new_size)
    for change in b.entry["changed"]:
        other = {one.slot: two, two.slot: one}.get(change["slot"])
        if other is not None:
            change.update(body=other.new, size=other.new_size)


@breaks("new-functions", "manifest-agrees")
def a_new_slot_holds_other_code(b: Broken) -> None:
    added = b.entry["added"][0]
    b.set_pointer(added["slot"], b.tables.redirects[0].new)


@breaks("new-functions", "manifest-agrees")
def a_new_stub_jumps_elsewhere(b: Broken) -> None:
    at = b.entry["added"][0]["entry"] + (-4 if HEADS else 2)      # the stub ends there, or begins
    b.write(at, struct.pack("<i", struct.unpack("<i", b.read(at, 4))[0] + 8))


@breaks("unwind-tables")
def the_table_does_not_end(b: Broken) -> None:
    start, size = b.table("eh_frame")
    b.set_count("eh_frame", size - 4)


@breaks("unwind-tables")
def code_without_a_description(b: Broken) -> None:
    start, size = b.table("eh_frame")
    length, = struct.unpack("<I", b.read(start, 4))
    b.write(start + 4 + length + 12, struct.pack("<I", 1))     # the first FDE covers one byte


def added_stub(b: Broken) -> int:
    return int(b.entry["added"][0]["entry"]) - (HEAD_ROOM if HEADS else 0)


@breaks("unwind-tables")
def a_stub_unwinds_otherwise(b: Broken) -> None:
    b.write(b.description_of(added_stub(b)) + 17, b"\x0e\x10")    # DW_CFA_def_cfa_offset: 16


@breaks("unwind-tables")
def two_descriptions_of_one_place(b: Broken) -> None:
    """That of a stub begins in the function before it."""
    place = b.description_of(added_stub(b)) + 8         # relative to itself
    b.write(place, struct.pack("<i", struct.unpack("<i", b.read(place, 4))[0] - 12))


def mark_transient(b: Broken) -> None:
    b.entry["transient"] = True
    b.write(b.file.entry + abi.PAYLOAD_HEAD.size - 4, struct.pack("<I", abi.PayloadFlags.TRANSIENT))


@breaks("transient")
def variables_and_new_functions_may_be_unmapped(b: Broken) -> None:
    mark_transient(b)


@breaks("transient", generation=2)
def its_code_makes_an_address_of_it(b: Broken) -> None:
    """`lea 0(%rip), %rax`: the address of the next instruction."""
    assert b.entry["transient"]
    b.write(b.tables.redirects[0].new, b"\x48\x8d\x05\0\0\0\0")


@breaks("manifest-agrees")
def the_manifest_says_that_it_may_be_unmapped(b: Broken) -> None:
    b.entry["transient"] = True


@breaks("manifest-agrees")
def a_change_is_hidden(b: Broken) -> None:
    b.entry["changed"].pop()


@breaks("manifest-agrees")
def a_variable_is_overwritten(b: Broken) -> None:
    """Merged no more: what the program made of it is lost."""
    b.set_word(b.row("updates", merged(b), 5) + 32, 0)


@breaks("manifest-agrees")
def an_element_is_shorter(b: Broken) -> None:
    b.set_word(b.row("updates", merged(b), 5) + 24, 3)


@breaks("manifest-agrees")
def a_new_function_is_hidden(b: Broken) -> None:
    b.entry["added"].pop()


@breaks("manifest-agrees")
def a_variable_is_somewhere_else(b: Broken) -> None:
    b.entry["data"]["added"][0]["address"] += 1


# ---- beside the image -------------------------------------------------------------------------------------------


@breaks("build-id")
def for_another_build(b: Broken) -> None:
    b.write(b.file.entry + 88, b"\0")


@breaks("segments-in-arena")
def takes_less_than_it_says(b: Broken) -> None:
    b.entry["arena"][1] += 4096


@breaks("segments-in-arena", "canonical-form")
def larger_than_the_arena(b: Broken) -> None:
    number = b.header_of("PT_LOAD", 6)
    b.set_header(number, size=1 << 24)
    b.entry["arena"][1] = b.header(number)[3] + (1 << 24)


@breaks("redirect-slots")
def starts_at_no_slot(b: Broken) -> None:
    at, redirect = b.row("redirects", 0, 5), b.tables.redirects[0]
    place = b.tables.updates[0].address // 8 * 8       # data of the image
    next(c for c in b.entry["changed"] if c["slot"] == redirect.slot)["slot"] = place
    b.set_pointer(at, place)


@breaks("redirect-slots", "redirect-new-code", "redirect-old-code", "manifest-agrees", "old-code-parts")
def one_slot_twice(b: Broken) -> None:
    b.set_pointer(b.row("redirects", 1, 5), b.tables.redirects[0].slot)


@breaks("redirect-old-code")
def expects_other_old_code(b: Broken) -> None:
    at, redirect = b.row("redirects", 0, 5), b.tables.redirects[0]
    next(c for c in b.entry["changed"] if c["slot"] == redirect.slot)["old_body"] += 1
    b.set_pointer(at + 8, redirect.old + 1)


@breaks("redirect-old-code")
def forgets_some_old_code(b: Broken) -> None:
    at, redirect = b.row("redirects", 0, 5), b.tables.redirects[0]
    next(c for c in b.entry["changed"] if c["slot"] == redirect.slot)["old_size"] -= 1
    b.set_word(at + 24, redirect.old_size - 1)


@breaks("redirect-old-code", generation=2)
def expects_the_image_under_a_later_generation(b: Broken) -> None:
    at, redirect = b.row("redirects", 0, 5), b.tables.redirects[0]
    change = next(c for c in b.entry["changed"] if c["slot"] == redirect.slot)
    change["old_body"] = redirect.old - 64
    b.set_pointer(at + 8, redirect.old - 64)


if HEADS:
    @breaks("redirect-slots")
    def a_head_is_not_listed(b: Broken) -> None:
        b.set_count("heads", b.table("heads")[1] - 1)

    @breaks("redirect-slots")
    def a_head_is_that_of_another_function(b: Broken) -> None:
        at = b.row("heads", 1, 2)
        b.set_pointer(at, b.tables.heads[0].at)

    @breaks("tables", "redirect-slots")
    def a_head_of_no_redirect(b: Broken) -> None:
        b.set_word(b.row("heads", len(b.tables.heads) - 1, 2) + 8, 99)

    @breaks("tables", "redirect-slots")
    def heads_in_another_order(b: Broken) -> None:
        b.set_word(b.row("heads", 1, 2) + 8, b.tables.heads[0].redirect)

    @breaks("new-functions")
    def a_new_head_is_idle(b: Broken) -> None:
        entry = b.entry["added"][0]["entry"]
        b.write(heads.place(b.file, entry), heads.IDLE)


@breaks("old-code-parts")
def a_cold_half_is_forgotten(b: Broken) -> None:
    b.set_count("parts", 0)


@breaks("old-code-parts")
def a_part_is_no_code(b: Broken) -> None:
    at = b.row("parts", 0, 3)
    b.set_pointer(at, b.tables.redirects[0].slot)


def branch_out(b: Broken) -> tuple[int, int]:
    """(address of the displacement, what it leads to) of a call or jump to the image."""
    for r in b.tables.redirects:
        for at, size, target, branch in _targets(b.read(r.new, r.new_size), r.new):
            if branch and size == 5 and b.file.load_of(target) is None:
                return at + 1, target
    raise AssertionError("the payload calls nothing of the image")


@breaks("references")
def calls_into_the_middle(b: Broken) -> None:
    field, _ = branch_out(b)
    b.write(field, struct.pack("<i", struct.unpack("<i", b.read(field, 4))[0] + 1))


@breaks("references")
def calls_past_a_stub(b: Broken) -> None:
    added = b.entry["added"][0]
    for r in b.tables.redirects:
        for at, size, target, branch in _targets(b.read(r.new, r.new_size), r.new):
            if branch and size == 5 and target in (added["entry"], added["entry"] - HEAD_STUB_SIZE):
                return b.write(at + 1, struct.pack("<i", added["body"] - at - 5))
    raise AssertionError("nothing calls the new function")


def constant(b: Broken) -> int:
    """The number of the update of a constant."""
    return next(i for i, u in enumerate(b.tables.updates) if u.flags == 1)


@breaks("data-updates")
def writes_to_another_object(b: Broken) -> None:
    number = constant(b)
    update = b.tables.updates[number]
    owner = next(d for d in b.entry["data"]["updated"] if d["address"] <= update.address < d["address"] + d["size"])
    owner["address"] -= 4096
    b.entry["data"]["writes"][number][0] -= 4096
    b.set_pointer(b.row("updates", number, 5), update.address - 4096)


@breaks("data-updates")
def writes_past_the_padding(b: Broken) -> None:
    number = constant(b)
    update = b.tables.updates[number]
    owner = next(d for d in b.entry["data"]["updated"] if d["address"] <= update.address < d["address"] + d["size"])
    owner["size"] += 160
    b.entry["data"]["writes"][number][1] += 160
    at = b.row("updates", number, 5)
    for field in (8, 16):                          # content from the front of the payload, where there is enough of it
        b.set_pointer(at + field, b.tables.start)
    b.set_word(at + 24, update.size + 160)


@breaks("data-updates")
def expects_other_content(b: Broken) -> None:
    at = b.tables.updates[constant(b)].old_content
    b.write(at, bytes([b.read(at, 1)[0] ^ 1]))


def merged(b: Broken) -> int:
    """The number of the update of a variable."""
    return next(i for i, u in enumerate(b.tables.updates) if u.flags == 2)


@breaks("data-updates")
def merges_what_was_never_there(b: Broken) -> None:
    at = b.tables.updates[merged(b)].old_content
    b.write(at, bytes([b.read(at, 1)[0] ^ 1]))


@breaks("data-updates", "manifest-agrees")
def the_object_is_called_otherwise(b: Broken) -> None:
    next(d for d in b.entry["data"]["updated"] if d["name"] == "limits")["name"] = "first"


@breaks("imports")
def imports_what_nobody_has(b: Broken) -> None:
    b.rename("strlen", "strlem")


@breaks("imports")
def imports_a_version_to_come(b: Broken) -> None:
    b.rename("GLIBC_2.2.5", "GLIBC_9.2.5")


@breaks("imports")
def imports_without_a_version(b: Broken) -> None:
    b.set_version("strlen", 1)


# ---- the tests --------------------------------------------------------------------------------------------------


@pytest.mark.both_kinds
@pytest.mark.parametrize("generation", [1, 2])
def test_a_good_bundle_passes_every_check(made: Made, generation: int) -> None:
    verdict = verify(made.bundles[generation - 1], Given([made.image], made.bundles[:generation - 1]))
    assert [(o.check, o.problems, o.why) for o in verdict.outcomes if o.status != "passed"] == []
    assert {o.check for o in verdict.outcomes} == set(OF_A_BUNDLE)


@pytest.mark.parametrize("name, kind", [("cc-new-object", "pie"), ("cc-new-inline-object", "pie"), ("thread-local-value", "pie"),
                                        ("initialiser-merge", "exec")])
def test_bundles_with_code_and_values_for_new_objects_pass(tmp_path: Path, name: str, kind: str) -> None:
    """And with nothing but values: the segment of code is empty."""
    configuration = Configuration.parse(f"gcc -O2 {kind}")
    made = make(read_case(CASES / name), configuration, tmp_path / "made", tmp_path / "shared")
    for generation, bundle in enumerate(made.bundles):
        verdict = verify(bundle, Given([made.image], made.bundles[:generation]))
        assert [(o.check, o.problems, o.why) for o in verdict.outcomes if o.status != "passed"] == []


@pytest.mark.both_kinds
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.check}-{m.what}")
def test_a_broken_bundle_is_rejected_by_its_check(made: Made, tmp_path: Path, mutation: Mutation) -> None:
    broken = Broken.of(made.bundles[mutation.generation - 1])
    mutation.change(broken)
    path = tmp_path / "broken.hotpatch"
    path.write_bytes(broken.data())
    verdict = verify(path, Given([made.image], made.bundles[:mutation.generation - 1]))
    assert not verdict.sound
    failed = {o.check: o.problems for o in verdict.of("failed")}
    assert mutation.check in failed, f"rejected by {failed} only"
    assert failed.keys() <= {mutation.check} | mutation.also, failed
    assert {o.check for o in verdict.outcomes} == set(OF_A_BUNDLE), "some check said nothing"


def test_only_padding_follows_the_end_of_an_unwind_table(made: Made) -> None:
    broken = Broken.of(made.bundles[0])
    start, size = broken.table("eh_frame")
    held = broken.read(start, size)
    found, ended = frames.read(held, start)
    assert found and ended and frames.read(held + bytes(4), start) == (found, True)
    assert frames.read(held + b"\0\1", start) == (found, False)


def test_each_reason_against_unmapping_is_told(made: Made) -> None:
    broken = Broken.of(made.bundles[0])
    assert not list(transience.problems(broken.tables)), "it is not marked"
    mark_transient(broken)
    said = "\n".join(transience.problems(broken.tables))
    assert "it has variables at" in said and "it brings the function third" in said and "holds its address" in said
    b = Broken.of(made.bundles[1])
    assert not list(transience.problems(b.tables))
    b.set_count("init_array", 1)
    struct.pack_into("<H", b.payload, 16, 2)       # ET_EXEC
    said = "\n".join(transience.problems(b.tables))
    assert "initialises objects" in said and "not position-independent" in said


LATER = """
#include "case.h"
NOINLINE int first(int n) { return n + 1; }
NOINLINE int second(int n) { return n * n * n + 7; }
void answer(const char *line) { printf("%d %d\\n", first((int)strlen(line)), second(2)); }
"""


def test_nothing_may_refer_to_a_payload_that_may_be_unmapped(tmp_path: Path) -> None:
    """A later payload that takes an address of it is rejected by `references`."""
    changed = LATER.replace("n + 1", "n + 2")
    case = case_of(tmp_path / "case", LATER, changed, changed.replace("+ 7", "+ 9"))
    made = make(case, Configuration.parse("gcc -O2 pie"), tmp_path / "made", tmp_path / "shared")
    first, second = map(Broken.of, made.bundles)
    assert first.entry["transient"] and verify(made.bundles[1], Given([made.image], made.bundles[:1])).sound
    code = second.tables.redirects[0].new
    second.write(code, b"\x48\x8d\x05" + struct.pack("<i", first.tables.start - code - 7))       # lea
    path = tmp_path / "broken.hotpatch"
    path.write_bytes(second.data())
    verdict = verify(path, Given([made.image], made.bundles[:1]))
    assert verdict.failed == ["references"] and "may be unmapped" in verdict.of("failed")[0].problems[0]


def test_every_check_has_a_mutation() -> None:
    assert {m.check for m in MUTATIONS} == set(OF_A_BUNDLE)


def test_without_the_image_nothing_is_passed_silently(made: Made) -> None:
    verdict = verify(made.bundles[0], Given([]))
    assert verdict.sound
    unchecked = {o.check: o.why for o in verdict.of("unchecked")}
    assert {"redirect-slots", "data-updates", "imports", "segments-in-arena"} <= unchecked.keys()
    assert all("--image" in why for why in unchecked.values())


def test_without_the_generation_before_nothing_is_passed_silently(made: Made) -> None:
    verdict = verify(made.bundles[1], Given([made.image]))
    assert "generation-chain" in {o.check for o in verdict.of("unchecked")}
    assert "redirect-old-code" in {o.check for o in verdict.of("unchecked")}


def test_an_image_of_another_build_does_not_count(made: Made) -> None:
    verdict = verify(made.bundles[0], Given([made.new[0]]))
    assert "redirect-slots" in {o.check for o in verdict.of("unchecked")}
