"""hotreload_tool/abi.py against the C header: every size, offset and number, as a compiler sees them."""
from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from hotreload_tool import abi, names

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"

PROGRAM = r"""
#include <stddef.h>
#include <stdio.h>
#include "hotreload_abi.h"

#define SHOW(name, value) printf("  \"%s\": %llu,\n", name, (unsigned long long)(value))
#define SIZE(type) SHOW("sizeof " #type, sizeof(struct type))
#define AT(type, field) SHOW(#type "." #field, offsetof(struct type, field))
#define NUMBER(name) SHOW(#name, name)

int main(void) {
  printf("{\n");
  NUMBER(HR_ABI); NUMBER(HR_PAYLOAD_MAGIC); NUMBER(HR_ID_SIZE); NUMBER(HR_BUILD_ID_MAX);
  NUMBER(HR_REQUEST_MAGIC); NUMBER(HR_REPLY_MAGIC); NUMBER(HR_MAX_PAYLOADS); NUMBER(HR_NOTE_IMAGE);
  NUMBER(HR_UPDATE_CONSTANT); NUMBER(HR_UPDATE_MERGE); NUMBER(HR_UPDATE_THREADS); NUMBER(HR_DRY_RUN); NUMBER(HR_FOR_LATER);
  NUMBER(HR_OP_STATUS); NUMBER(HR_OP_APPLY); NUMBER(HR_OP_REVERT);
  NUMBER(HR_WHEN_NOW); NUMBER(HR_WHEN_QUIESCENT); NUMBER(HR_WHEN_SAFEPOINT);
  SIZE(hr_redirect); AT(hr_redirect, slot); AT(hr_redirect, old_target); AT(hr_redirect, new_target);
  AT(hr_redirect, old_size); AT(hr_redirect, new_size);
  SIZE(hr_head); AT(hr_head, at); AT(hr_head, redirect);
  SIZE(hr_part); AT(hr_part, start); AT(hr_part, size); AT(hr_part, redirect);
  SIZE(hr_update); AT(hr_update, address); AT(hr_update, old_content); AT(hr_update, new_content);
  AT(hr_update, size); AT(hr_update, flags);
  SIZE(hr_payload); AT(hr_payload, magic); AT(hr_payload, abi); AT(hr_payload, size); AT(hr_payload, generation);
  AT(hr_payload, id); AT(hr_payload, parent); AT(hr_payload, build_id); AT(hr_payload, build_id_size);
  AT(hr_payload, flags);
  AT(hr_payload, redirects); AT(hr_payload, n_redirects); AT(hr_payload, updates); AT(hr_payload, n_updates);
  AT(hr_payload, eh_frame); AT(hr_payload, eh_frame_size); AT(hr_payload, tls_modules); AT(hr_payload, n_tls_modules);
  AT(hr_payload, init_array); AT(hr_payload, n_init_array);
  AT(hr_payload, parts); AT(hr_payload, n_parts);
  AT(hr_payload, heads); AT(hr_payload, n_heads);
  SIZE(hr_request); AT(hr_request, magic); AT(hr_request, abi); AT(hr_request, op); AT(hr_request, flags);
  AT(hr_request, when); AT(hr_request, timeout_ms); AT(hr_request, n_payloads); AT(hr_request, generation);
  AT(hr_request, build_id); AT(hr_request, guard_ms); NUMBER(HR_MAX_GUARD_MS);
  NUMBER(HR_TOGETHER); NUMBER(HR_BALLOT_MAGIC); NUMBER(HR_BALLOT_READY); NUMBER(HR_BALLOT_DECISION_SHIFT);
  SHOW("decision UNDECIDED", HR_UNDECIDED); SHOW("decision COMMITTED", HR_COMMITTED);
  SHOW("decision ABANDONED", HR_ABANDONED);
  SIZE(hr_ballot); AT(hr_ballot, magic); AT(hr_ballot, members); AT(hr_ballot, withdrawn); AT(hr_ballot, state);
  SIZE(hr_reply); AT(hr_reply, magic); AT(hr_reply, abi); AT(hr_reply, code); AT(hr_reply, length);
#define HR_CODE(name, number, exit_code, text) NUMBER(HR_##name); SHOW("exit " #name, exit_code);
#include "hr_codes.def"
  SHOW("end", 0);
  printf("  \"\": 0\n}\n");
  return 0;
}
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the compiler says, by name."""
    folder = tmp_path_factory.mktemp("abi")
    (folder / "show.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{RUNTIME}", "show.c", "-o", "show"], cwd=folder,
                   check=True, timeout=120)
    shown = subprocess.run([folder / "show"], check=True, capture_output=True, timeout=60).stdout
    found: dict[str, int] = json.loads(shown)
    return found


def offsets(seen: dict[str, int], struct: str) -> dict[str, int]:
    return {k.split(".")[1]: v for k, v in seen.items() if k.startswith(struct + ".")}


def test_constants(seen: dict[str, int]) -> None:
    assert seen["HR_ABI"] == abi.ABI
    assert seen["HR_PAYLOAD_MAGIC"] == abi.PAYLOAD_MAGIC
    assert seen["HR_REQUEST_MAGIC"] == abi.REQUEST_MAGIC
    assert seen["HR_REPLY_MAGIC"] == abi.REPLY_MAGIC
    assert seen["HR_ID_SIZE"] == abi.ID_SIZE
    assert seen["HR_BUILD_ID_MAX"] == abi.BUILD_ID_MAX
    assert seen["HR_MAX_PAYLOADS"] == abi.MAX_PAYLOADS
    assert seen["HR_MAX_GUARD_MS"] == abi.MAX_GUARD_MS
    assert seen["HR_NOTE_IMAGE"] == abi.NOTE_IMAGE


@pytest.mark.parametrize("prefix, members", [("HR_OP_", abi.Op), ("HR_WHEN_", abi.When), ("HR_UPDATE_", abi.UpdateFlags)])
def test_enums(seen: dict[str, int], prefix: str, members: type[abi.Op]) -> None:
    assert {m.name: m.value for m in members} == {k[len(prefix):]: v for k, v in seen.items() if k.startswith(prefix)}


def test_request_flags(seen: dict[str, int]) -> None:
    assert abi.RequestFlags.DRY_RUN == seen["HR_DRY_RUN"]
    assert abi.RequestFlags.TOGETHER == seen["HR_TOGETHER"]
    assert abi.RequestFlags.FOR_LATER == seen["HR_FOR_LATER"]


def test_ballot(seen: dict[str, int]) -> None:
    assert seen["HR_BALLOT_MAGIC"] == abi.BALLOT_MAGIC
    assert seen["HR_BALLOT_READY"] == abi.BALLOT_READY
    assert seen["HR_BALLOT_DECISION_SHIFT"] == abi.BALLOT_DECISION_SHIFT
    assert seen["hr_ballot.withdrawn"] == abi.BALLOT_WITHDRAWN
    assert {d.name: d.value for d in abi.Decision} == {k.split()[1]: v for k, v in seen.items() if k.startswith("decision ")}


def test_codes_are_those_of_the_compiler(seen: dict[str, int]) -> None:
    exits = {k[len("exit "):]: v for k, v in seen.items() if k.startswith("exit ")}
    assert exits == {name: entry.exit_code for name, entry in abi.CODES.items()}
    assert {name: seen[f"HR_{name}"] for name in exits} == {c.name: c.value for c in abi.Code}


def test_codes_have_sentences_and_dense_numbers() -> None:
    assert [entry.number for entry in abi.CODES.values()] == list(range(len(abi.CODES)))    # report.c indexes by number
    assert all(entry.sentence for entry in abi.CODES.values())
    assert abi.Code["DEADLINE"].entry.exit_code == 4


def test_a_code_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 entries begin, 1 can be read"):
        abi.parse_codes('HR_CODE(OK, 0, 0, "done")\nHR_CODE(BAD, x, 0, "broken")\n')


def test_payload(seen: dict[str, int]) -> None:
    assert seen["sizeof hr_payload"] == abi.PAYLOAD_SIZE
    at = offsets(seen, "hr_payload")
    for name, offset in abi.PAYLOAD_TABLES.items():
        assert at[name] == offset
        assert at["eh_frame_size" if name == "eh_frame" else f"n_{name}"] == offset + 8
    identity, parent, build_id = bytes(range(32)), bytes(range(32, 64)), bytes(range(100, 120))
    blob = abi.pack_payload(7, identity, parent, build_id)
    assert len(blob) == abi.PAYLOAD_SIZE

    def number(field: str, size: int) -> int:
        return int.from_bytes(blob[at[field]:at[field] + size], "little")

    assert number("magic", 8) == abi.PAYLOAD_MAGIC
    assert number("abi", 4) == abi.ABI
    assert number("size", 4) == abi.PAYLOAD_SIZE
    assert number("generation", 8) == 7
    assert number("build_id_size", 4) == 20
    assert number("flags", 4) == 0
    assert blob[at["id"]:at["id"] + 32] == identity
    assert blob[at["parent"]:at["parent"] + 32] == parent
    assert blob[at["build_id"]:at["build_id"] + 32] == build_id + bytes(12)
    assert not any(blob[at["redirects"]:])


@pytest.mark.parametrize("identity, build_id", [(31, 20), (33, 20), (32, 0), (32, 33)])
def test_payload_of_wrong_sizes_is_refused(identity: int, build_id: int) -> None:
    with pytest.raises(ValueError):
        abi.pack_payload(1, bytes(identity), bytes(32), bytes(build_id))


@pytest.mark.parametrize("struct, layout, fields", [
    ("hr_redirect", abi.REDIRECT, ["slot", "old_target", "new_target", "old_size", "new_size"]),
    ("hr_part", abi.PART, ["start", "size", "redirect"]),
    ("hr_head", abi.HEAD, ["at", "redirect"]),
    ("hr_update", abi.UPDATE, ["address", "old_content", "new_content", "size", "flags"]),
    ("hr_reply", abi.REPLY, ["magic", "abi", "code", "length"]),
    ("hr_ballot", abi.BALLOT, ["magic", "members", "withdrawn", "state"]),
])
def test_layouts(seen: dict[str, int], struct: str, layout: object, fields: list[str]) -> None:
    """Each field alone holds ones: their place in the packed bytes is the compiler's offset."""
    import struct as packing

    assert isinstance(layout, packing.Struct)
    assert layout.size == seen[f"sizeof {struct}"]
    for i, name in enumerate(fields):
        packed = layout.pack(*(int(j == i) for j in range(len(fields))))
        assert packed.index(1) == seen[f"{struct}.{name}"], name


def test_request_is_what_the_agent_reads(seen: dict[str, int]) -> None:
    packed = abi.pack_request(abi.Op.APPLY, 3, dry_run=True, when=abi.When.SAFEPOINT, timeout_ms=1 << 40)
    at = offsets(seen, "hr_request")
    fields = [int.from_bytes(packed[at[f]:at[f] + size], "little") for f, size in
              (("magic", 4), ("abi", 2), ("op", 2), ("flags", 4), ("when", 4), ("timeout_ms", 4), ("n_payloads", 4))]
    assert fields == [abi.REQUEST_MAGIC, abi.ABI, 2, 1, 2, 0xFFFFFFFF, 3]
    assert not any(packed[at["generation"]:])
    revert = abi.pack_request(abi.Op.REVERT, generation=7, build_id=b"\1\2")
    assert len(revert) == seen["sizeof hr_request"]
    assert revert[at["generation"]:at["generation"] + 8] == (7).to_bytes(8, "little")
    assert revert[at["build_id"]:at["guard_ms"]] == b"\1\2" + bytes(30)
    assert not any(revert[at["guard_ms"]:])
    guarded = abi.pack_request(abi.Op.APPLY, 1, guard_ms=1500)
    assert guarded[at["guard_ms"]:] == (1500).to_bytes(8, "little")


def test_note_owner_is_the_one_the_runtime_writes() -> None:
    assert f'.asciz \\"{names.NOTE_OWNER[:-1].decode()}\\"' in (RUNTIME / "image.c").read_text()


def test_runtime_directory_is_the_repository_s() -> None:
    assert abi.runtime_directory() == RUNTIME
