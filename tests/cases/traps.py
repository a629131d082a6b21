"""What object-diff patchers have met, and where it is shown that it does not bite here. docs/traps.md is made from this:

    python tests/cases/traps.py > docs/traps.md

Each trap has tests (`shown`: the name of a case, or `tests/FILE.py::FUNCTION`), or a reason why it cannot occur, or both where
the reason covers one side of it. Numbers are those of our list of traps, gathered from the sources and bug reports of kpatch,
klp-build, Ksplice, libpulp, libcare, syscare, Katana and Xen.
"""

from __future__ import annotations

from dataclasses import dataclass

INSTRUMENT, DIFFERENCE, PLAN = "tests/unit/test_instrument.py", "tests/unit/test_difference.py", "tests/unit/test_plan.py"
LIVE, REFUSALS, BASELINE = "tests/runtime/test_live.py", "tests/runtime/test_refusals.py", "tests/unit/test_baseline.py"
QUIESCENT, REVERT = "tests/runtime/test_quiescent.py", "tests/runtime/test_revert.py"
KERNEL = "cannot occur: it is about the inside of a kernel"


@dataclass(frozen=True)
class Trap:
    title: str
    shown: tuple[str, ...] = ()
    why: str = ""


TRAPS = {
    # ---- comparison
    1: Trap(
        "Another compiler or other flags between the two builds",
        (f"{PLAN}::test_another_way_of_compiling_is_refused_if_anything_changed", f"{BASELINE}::test_a_linked_image"),
        "the objects that run are the ones that are compared: their maps travel in the image, found by build-id",
    ),
    2: Trap(
        "Relocations compared as bytes",
        (
            f"{DIFFERENCE}::test_changed_added_and_removed_functions",
            "self-diff",
            "tests/real/test_lua_diff.py::test_every_object_against_a_rebuild_elsewhere",
        ),
    ),
    3: Trap(
        "Headers of the ELF file; more than 64k sections",
        ("tests/cases/test_tables.py::test_more_sections_than_a_half_word_counts", f"{INSTRUMENT}::test_refusals"),
    ),
    4: Trap(
        "Alignment of sections; sections without bytes",
        (
            "alignment",
            f"{PLAN}::test_another_alignment_that_the_address_has_is_no_change",
            f"{INSTRUMENT}::test_zeroed_objects_have_room_to_grow",
        ),
    ),
    5: Trap("A symbol that does not begin its section", ("shared-sections", "assembly")),
    6: Trap(
        "References by section symbol and addend",
        (f"{INSTRUMENT}::test_an_immediate_after_the_displacement_does_not_mislead", "shared-sections", "addresses"),
    ),
    7: Trap("Pointers to the end of an object, negative addends", ("addresses",)),
    8: Trap("Size, type, binding or section of a symbol changes", ("convert-global-local", "variable-kinds", "read-mostly")),
    9: Trap("One name for several things", (f"{INSTRUMENT}::test_two_locals_of_one_name", "cc-anonymous-namespace")),
    10: Trap("Objects without section symbols", ("tests/unit/test_instrument_properties.py::test_symbols_are_kept", "assembly")),
    11: Trap(
        "Objects made by ld -r; one file name in two directories; equal local names",
        (
            f"{INSTRUMENT}::test_two_locals_of_one_name",
            "tests/scons/test_use.py::test_objects_are_named_by_their_path_in_the_build",
        ),
    ),
    12: Trap("Sections that mean nothing to a running program", (f"{PLAN}::test_known_sections_may_change", "line-shift")),
    13: Trap(
        "Debug sections: compressed, in groups, -g3",
        ("tests/scons/test_use.py::test_assembler_sources_and_split_debug_information", "no-debug"),
    ),
    14: Trap(
        '"Nothing changed" taken for an error; only the first reason told',
        ("self-diff", "several-reasons", f"{PLAN}::test_all_reasons_are_told_at_once"),
    ),
    # ---- names that compilers make
    15: Trap("Numbered names: .constprop.8 and .9", ("gcc-constprop", f"{DIFFERENCE}::test_clones_are_their_functions")),
    16: Trap(
        "C static locals are numbered anew",
        ("static-local-swap", f"{DIFFERENCE}::test_a_new_function_takes_the_number_of_an_old_variable"),
    ),
    17: Trap(
        "Static locals: shared, of one name in one function, of another size, of a function that was inlined",
        (
            "static-local-inlined",
            "static-local-scopes",
            "static-local-size",
            "static-local-coming-back",
            f"{DIFFERENCE}::test_merged_or_split_users_are_ambiguous",
        ),
    ),
    18: Trap("C++ statics and their guards", ("cc-static-guard", "cc-comdat", "renamed-function")),
    19: Trap(
        "Names made unique by a counter",
        (f"{DIFFERENCE}::test_any_renumbering_is_no_change",),
        "what has a name made by __COUNTER__ is new when the counter moves, and comes only if something refers to it",
    ),
    20: Trap(
        "Constants and once-flags that compilers or macros make",
        (
            "function-name",
            "switch-table",
            "once-flags",
            f"{INSTRUMENT}::test_constants_that_compilers_make_have_no_name_of_their_own",
        ),
    ),
    21: Trap("Link-time optimisation", ("tests/scons/test_use.py::test_lto_object_is_refused_by_name",)),
    22: Trap(
        "Mapping symbols and relaxation of other processors",
        (),
        "cannot occur: x86-64 has neither, and objects for another machine are refused",
    ),
    # ---- source positions and environment
    23: Trap("__LINE__ in code", ("line-shift", "tests/live/test_edits.py::test_nothing_to_do")),
    24: Trap(
        "__FILE__, __DATE__, build directories",
        (
            "tests/real/test_lua_diff.py::test_every_object_against_a_rebuild_elsewhere",
            "tests/scons/test_generate.py::test_where_the_tool_is_installed_is_no_part_of_signatures",
        ),
    ),
    25: Trap(
        "Strings that are merged and addressed by offset",
        ("string-merging", f"{INSTRUMENT}::test_merge_sections_keep_their_bytes_and_their_references"),
    ),
    26: Trap("Pools of constants", ("constant-pool",)),
    27: Trap("Jump tables", ("jump-table", f"{INSTRUMENT}::test_jump_tables_are_left_alone")),
    28: Trap("Initial values of large local arrays", ("constant-pool", "addresses")),
    # ---- effects between functions
    29: Trap("A change of what is inlined", ("inlined", "newly-inlined")),
    30: Trap(
        ".cold halves", ("cold-add", "cold-change", "cold-remove", f"{INSTRUMENT}::test_a_cold_half_belongs_to_its_function")
    ),
    31: Trap(
        ".part, .isra and .constprop have another interface than the source says", ("gcc-part", "gcc-isra", "gcc-constprop")
    ),
    32: Trap(
        "Callers that know which registers a callee leaves alone (IPA-RA)",
        ("tests/scons/test_compiler.py::test_takes_the_first_set_that_works",),
        "cannot occur: GCC is told not to (-fno-ipa-ra), and clang does not",
    ),
    33: Trap(
        "Facts about a callee that its callers rely on (pure, value ranges)",
        ("body", "newly-inlined"),
        "the whole object is compiled anew, so callers whose code relies on such a fact change and are replaced too",
    ),
    34: Trap("Functions of the same content that are folded into one", ("identical-functions", "alias")),
    35: Trap(
        "Tail calls hide the caller",
        ("recursion", f"{QUIESCENT}::test_a_call_never_meets_two_versions"),
        "a caller that is no longer on the stack will not run old code again",
    ),
    36: Trap(
        "Variables that are read or written only after the edit",
        ("tests/scons/test_compiler.py::test_takes_the_first_set_that_works", "initialiser-merge"),
    ),
    37: Trap("An added message moves its neighbours into .cold", ("cold-add",)),
    38: Trap("Whole-program visibility", ("tests/scons/test_use.py::test_lto_object_is_refused_by_name",)),
    # ---- data
    39: Trap("Changed tables of function pointers", ("string-table",)),
    40: Trap(
        "Changed layout of a struct",
        (
            f"{PLAN}::test_a_changed_layout_is_refused_by_name_with_its_users",
            "tests/live/test_edits.py::test_changed_layout_is_refused",
        ),
    ),
    41: Trap(
        "Another meaning of the same layout",
        (),
        "nothing in an object shows it; what the edit means is its author's to say, in hooks that run before and after a patch",
    ),
    42: Trap("Initialisation that has run already", ("initialiser-merge", "data-new", "cc-static-guard")),
    43: Trap("Flags for what is done once, in sections of their own", ("once-flags", "read-mostly")),
    44: Trap("COMMON, weak data, copies of library data", ("common", "common-blocks", "library-data")),
    45: Trap(
        "A new variable though no function changed",
        ("new-globals", "data-new"),
        "what nothing that runs refers to waits for the edit that does",
    ),
    # ---- entries
    46: Trap(
        "Functions without room for a jump at their entry",
        ("assembly", "plain-part"),
        "cannot occur where the tool built the object: every function has its stub, assembly too",
    ),
    47: Trap("Functions shorter than a jump", ("recursion",), "cannot occur: no entry is overwritten"),
    48: Trap("endbr64 comes first", ("hardened", f"{INSTRUMENT}::test_branch_protection_makes_stubs_begin_with_endbr64")),
    49: Trap(
        "Room that crosses a page; protections of code",
        (f"{LIVE}::test_no_page_is_ever_writable_and_executable",),
        "cannot occur: no byte of code is ever written",
    ),
    50: Trap(
        "Entries that are torn while written",
        (f"{LIVE}::test_new_code_runs_and_old_does_not",),
        "cannot occur: one aligned pointer is stored for each function",
    ),
    51: Trap(
        "Functions missing from __patchable_function_entries",
        (f"{INSTRUMENT}::test_a_comdat_function_brings_stub_and_slot_into_its_group",),
        "cannot occur: that section is not used",
    ),
    52: Trap(
        "Patching what the patcher uses",
        (f"{LIVE}::test_patches_come_in_while_threads_fork",),
        "cannot occur: the runtime is not instrumented, and libraries of the system are not either",
    ),
    53: Trap("Breakpoints and probes on the same bytes", (), "cannot occur: no byte of code is compared or written"),
    54: Trap(
        "Threads in the middle of an old function",
        ("replaced-while-called", "tests/real/test_lua_busy.py::test_call_under_way_finishes_in_the_old_code"),
    ),
    # ---- linking the patch
    55: Trap("Symbols that the dynamic linker cannot see", ("hidden", "body", "static-local-swap")),
    56: Trap("Identity of function pointers", ("function-pointer-new", "newly-inlined", "moved-function", "alias")),
    57: Trap("GOT relaxation, reach of 2 GiB", ("library-data", f"{REFUSALS}::test_arena_that_is_nearly_full")),
    58: Trap("Models of thread-local storage", ("thread-local", f"{PLAN}::test_existing_thread_locals_are_bound_by_offset")),
    59: Trap("IFUNC", ("ifunc", f"{INSTRUMENT}::test_indirect_functions_are_left_alone")),
    60: Trap("Versions, interposition, visibility", ("hidden", "weak", f"{LIVE}::test_imports")),
    61: Trap("A function that becomes file-local", ("convert-global-local",)),
    62: Trap("Calls of new functions in other files; new libraries", ("new-globals", f"{LIVE}::test_imports")),
    63: Trap("Images that are loaded later", (f"{LIVE}::test_program_and_library", "tests/live/test_examples.py::test_plugin")),
    64: Trap(
        "One static library in several images",
        (
            f"{LIVE}::test_one_library_loaded_twice",
            "tests/scons/test_hotpatch_target.py::test_shared_libraries_are_images_of_their_own",
        ),
    ),
    65: Trap("Tables at the side of functions", ("cc-exceptions", "side-table", "linker-array")),
    66: Trap("Compressed or obsolete metadata", (), KERNEL),
    # ---- run time
    67: Trap(
        "Threads taken over by ptrace",
        (f"{LIVE}::test_signals_and_wakeups",),
        "cannot occur: nothing is attached to a process; its own agent takes the patch",
    ),
    68: Trap(
        "Locks that a stopped thread holds",
        (f"{LIVE}::test_children", f"{QUIESCENT}::test_many_threads"),
        "while threads are parked the agent allocates nothing and takes no lock (tests/test_tidy.py looks)",
    ),
    69: Trap("Threads that come while others are waited for", (f"{QUIESCENT}::test_threads_and_children_born_meanwhile",)),
    70: Trap(
        "Functions that are always on a stack",
        (f"{QUIESCENT}::test_a_thread_in_the_function_blocks_and_is_named", "replaced-while-called"),
    ),
    71: Trap(
        "Stacks that no thread is on; saved jump buffers",
        (
            "longjmp",
            f"{QUIESCENT}::test_frames_on_another_stack_are_seen",
            "tests/runtime/test_coroutines.py::test_a_coroutine_that_waits_in_the_function_blocks_and_is_named",
            f"{QUIESCENT}::test_documented_exceptions",
            "tests/real/test_lua_busy.py::test_coroutines_that_were_suspended",
        ),
    ),
    72: Trap(
        "Signal handlers at any instruction",
        ("signal-handler", f"{QUIESCENT}::test_other_stacks_and_masked_signals_do_not_block"),
    ),
    73: Trap(
        "Jumps, cancellation and exceptions across patched frames",
        ("longjmp", "cc-exceptions", f"{LIVE}::test_exceptions_through_patched_functions"),
    ),
    74: Trap("Pointers to functions that others keep", ("callback", "signal-handler", "cc-virtual", "plain-part")),
    75: Trap(
        "Children, and processes that are started later",
        (f"{LIVE}::test_children", "tests/real/test_lua_chain.py::test_process_of_a_newer_build"),
    ),
    76: Trap(
        "A patch that fails half-way",
        (
            "tests/runtime/test_faults.py::test_failing_step_leaves_no_trace",
            "tests/live/test_faults.py::test_killed_at_a_step",
            "several-reasons",
        ),
    ),
    77: Trap(
        "Going back: code on stacks, data, the order of patches",
        (
            f"{REVERT}::test_a_thread_in_what_is_reverted_blocks",
            f"{REVERT}::test_contents_go_back_unless_the_program_changed_them",
            f"{REVERT}::test_another_history_after_a_revert",
        ),
    ),
    78: Trap(
        "Files that were replaced or removed, build-ids among other notes",
        (
            f"{BASELINE}::test_writing_over_the_image_leaves_the_baseline_alone",
            "tests/real/test_lua_rude.py::test_baseline_removed",
            f"{BASELINE}::test_a_baseline_comes_back_from_a_running_process",
        ),
    ),
    79: Trap(
        "Permissions",
        ("tests/real/test_users.py::test_the_process_of_another_user", f"{LIVE}::test_set_user_id_programs_have_no_agent"),
    ),
    80: Trap(
        "Many processes, slow machines",
        (
            "tests/live/test_apply.py::test_several_processes_are_patched_only_when_asked_for",
            "tests/live/test_apply.py::test_a_stopped_process_runs_into_the_deadline",
        ),
    ),
    81: Trap(
        "No changed function on a stack, and still two versions in one operation",
        (
            "tests/runtime/test_cooperation.py::test_safepoints_keep_versions_apart",
            "tests/runtime/test_cooperation.py::test_without_them_an_unpatched_caller_sees_both",
        ),
    ),
}


def page() -> str:
    """docs/traps.md."""
    lines = [
        "# Traps",
        "",
        "What object-diff patchers have met, and the test that shows that it does not bite here, or why it cannot occur.",
        "Made by `python tests/cases/traps.py`; a name alone is a case in `tests/cases`.",
        "",
        "| trap | | shown by |",
        "|---|---|---|",
    ]
    for number, trap in TRAPS.items():
        shown = ", ".join(f"`{name}`" for name in trap.shown)
        lines.append(f"| {number} | {trap.title} | {'; '.join(x for x in (shown, trap.why) if x)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
