"""The scenarios in the test suites of peers, and ours of the same kind.

kpatch (integration tests, and pairs of objects of its unit tests), libpulp, libcare and libcareplus, the livepatch selftests
of Linux and SUSE's, Xen, Katana, Kitsune, Popcorn. A scenario has tests (`shown`: the name of a case, or
`tests/FILE.py::FUNCTION`) or a reason why it makes no sense for a program in user space, or for this tool.
"""

from __future__ import annotations

from dataclasses import dataclass

LIVE, REFUSALS, QUIESCENT = "tests/runtime/test_live.py", "tests/runtime/test_refusals.py", "tests/runtime/test_quiescent.py"
REVERT, COOPERATION = "tests/runtime/test_revert.py", "tests/runtime/test_cooperation.py"
APPLY, RUDE, USERS = "tests/live/test_apply.py", "tests/real/test_lua_rude.py", "tests/real/test_users.py"
KERNEL = "a table or a mechanism that only kernels have"
PTRACE = "nothing is attached to the process and no thread of it is taken over, so there is nothing of the kind to restore"
MIGRATION = "objects that live are not converted; what would need it is refused"


@dataclass(frozen=True)
class Peer:
    shown: tuple[str, ...] = ()
    why: str = ""


def shown(*names: str) -> Peer:
    return Peer(names)


def senseless(why: str, *names: str) -> Peer:
    return Peer(names, why)


KPATCH_INTEGRATION = {
    "bug-table": senseless(KERNEL, "side-table"),
    "cmdline-string": shown("string-merging", "cold-change"),
    "data-new": shown("data-new"),
    "data-read-mostly": shown("read-mostly", "once-flags"),
    "fixup-section": shown("side-table", "inline-assembly"),
    "gcc-constprop": shown("gcc-constprop"),
    "gcc-isra": shown("gcc-isra"),
    "gcc-mangled-3": shown("gcc-constprop", "gcc-part"),
    "gcc-static-local-var": shown("static-local-swap", "new-function"),
    "gcc-static-local-var-2": shown("static-local-swap"),
    "gcc-static-local-var-3": shown("static-local-swap"),
    "gcc-static-local-var-4": shown("static-local-inlined"),
    "gcc-static-local-var-5": shown("static-local-inlined"),
    "gcc-static-local-var-6": shown("static-local-scopes"),
    "macro-callbacks": shown(f"{COOPERATION}::test_hooks_run_and_may_refuse"),
    "macro-printk": shown("cold-add", "macro-generated"),
    "meminfo-init-FAIL": shown("tests/unit/test_plan.py::test_functions_that_run_once_get_a_note"),
    "meminfo-init2-FAIL": shown("several-reasons"),
    "meminfo-string": shown("body"),
    "meminfo-cmdline-rebuild-SLOW": shown(
        "tests/scons/test_hotpatch_target.py::test_compiles_what_changed_and_never_relinks", "self-diff"
    ),
    "module": shown(f"{LIVE}::test_program_and_library", "plain-part"),
    "module-call-external": shown("library-data", "plain-part"),
    "module-kvm-fixup": senseless(KERNEL, "side-table"),
    "module-shadow": senseless("a program can hang what it likes on its objects; " + MIGRATION),
    "new-function": shown("new-function"),
    "new-globals": shown("new-globals"),
    "parainstructions": senseless(KERNEL),
    "replace-section-references": shown("shared-sections", "addresses"),
    "shadow-newpid": senseless(MIGRATION, "tests/live/test_edits.py::test_changed_layout_is_refused"),
    "smp-locks": senseless(KERNEL),
    "special-static": shown("once-flags", "static-local-inlined"),
    "special-static-2": shown("static-local-inlined"),
    "symvers-disagreement-FAIL": shown("tests/live/test_edits.py::test_changed_layout_is_refused"),
    "syscall": shown("macro-generated"),
    "tracepoints-section": senseless(KERNEL, "linker-array"),
    "warn-detect-FAIL": shown("line-shift"),
    "difftree": shown("self-diff", "tests/real/test_lua_diff.py::test_every_object_against_itself"),
    "multiple": shown("many-generations", f"{REVERT}::test_back_and_forth"),
}

KPATCH_UNIT = {
    "ASSERT_RTNL-detect": shown("line-shift", "body"),
    "altinstr_aux": senseless(KERNEL, "reordered"),
    "bug-table": senseless(KERNEL, "side-table"),
    "clang-lstr": shown("string-merging"),
    "clang-special-static": shown("static-local-swap", "function-name"),
    "clang-unnamed": shown("switch-table", "constant-pool"),
    "cmdline-ubsan": shown("string-merging", "hardened"),
    "cold-add": shown("cold-add"),
    "cold-add2": shown("cold-add"),
    "cold-change-parent": shown("cold-change"),
    "cold-change-sub": shown("cold-change"),
    "cold-del-sub": shown("cold-remove"),
    "cold-noid": shown("self-diff", "tests/unit/test_instrument.py::test_a_cold_half_belongs_to_its_function"),
    "convert-global-local": shown("convert-global-local"),
    "data-new": shown("data-new"),
    "data-read-mostly": shown("read-mostly"),
    "dynamic-debug-jump-label": senseless(KERNEL),
    "dynamic-debug-special-static": senseless(KERNEL, "once-flags"),
    "fixup": shown("side-table", "inline-assembly"),
    "function-ptr-new": shown("function-pointer-new"),
    "gcc-constprop": shown("gcc-constprop"),
    "gcc-constprop-cold": shown("gcc-constprop", "cold-change"),
    "gcc-constprop-2": shown("gcc-constprop"),
    "gcc-static-local-var-3": shown("static-local-swap"),
    "gcc-static-local-var-5": shown("static-local-inlined"),
    "ignore-missing-ftracehook": shown("assembly"),
    "import-ns": senseless(KERNEL),
    "jump-label": senseless("code that rewrites itself is a kernel's; the user's kind is computed goto", "label-table"),
    "line-detect": shown("line-shift", "macro-generated"),
    "mangled-symbol-modification": shown("gcc-constprop", "gcc-isra", "gcc-part"),
    "mcount_loc": senseless("entries are stubs, and no table of them is needed"),
    "meminfo-init": shown("tests/unit/test_plan.py::test_functions_that_run_once_get_a_note"),
    "meminfo-init2": shown("several-reasons"),
    "missing-secsym": shown("shared-sections"),
    "mrecord-mcount": senseless("entries are stubs, and no table of them is needed"),
    "multifile": shown("tests/unit/test_instrument.py::test_two_locals_of_one_name", "cc-anonymous-namespace"),
    "new-function": shown("new-function"),
    "oot-module": shown("tests/unit/test_baseline.py::test_a_stripped_image_is_refused_and_fits_its_baseline"),
    "PLT32-relocs": shown("recursion", "library-data"),
    "printk-index": senseless(KERNEL),
    "replace-section-references": shown("shared-sections"),
    "secsym": shown("shared-sections"),
    "smp-locks": senseless(KERNEL),
    "special-static": shown("static-local-inlined"),
    "static-call": senseless(KERNEL),
    "static-local-subfunction": shown("static-local-inlined", "newly-inlined"),
    "this_ip": shown("label-table"),
    "tracepoints": senseless(KERNEL),
    "unique-id": shown("reordered", "tests/unit/test_difference.py::test_any_renumbering_is_no_change"),
    "warn-detect": shown("line-shift"),
    "zero-page-rela": shown("addresses"),
    "data-rel": shown("addresses", "string-table"),
    "bundled-local-entry": senseless("functions of x86-64 have one entry"),
    "ftr-fixup": senseless(KERNEL),
    "sibling-call-FAIL": shown("recursion"),
    "rela-common-symbols": shown("common", "common-blocks"),
    "sec-addralign": shown("alignment"),
    "static-local-size-mismatch": shown("static-local-size"),
}

LIBPULP = {
    "numserv": shown("many-generations", f"{LIVE}::test_program_and_library"),
    "numserv_bsymbolic": shown("hidden"),
    "parameters": shown("parameters", "large-values", "varargs"),
    "recursion": shown("recursion"),
    "recursion2": shown("mutual-recursion"),
    "blocked": shown("replaced-while-called", f"{QUIESCENT}::test_a_thread_in_the_function_blocks_and_is_named"),
    "contract": shown("tests/live/test_edits.py::test_changed_layout_is_refused"),
    "deadlock": shown(f"{LIVE}::test_patches_come_in_while_threads_fork", f"{QUIESCENT}::test_many_threads"),
    "asunsafe_conversion": shown("signal-handler", f"{LIVE}::test_signals_and_wakeups"),
    "redzone": senseless(PTRACE),
    "syscall_restart": shown(f"{LIVE}::test_signals_and_wakeups",
                             f"{QUIESCENT}::test_sleepers_that_are_woken_get_what_they_waited_for"),
    "terminal": shown(f"{LIVE}::test_signals_and_wakeups"),
    "pagecross": senseless("no byte of code is written"),
    "hidden": shown("hidden"),
    "memory_protection": shown(f"{LIVE}::test_no_page_is_ever_writable_and_executable"),
    "constructor": shown(f"{LIVE}::test_disabled_by_the_environment"),
    "cancel": shown("longjmp", "cc-exceptions"),
    "exception_handling": shown("cc-exceptions", f"{LIVE}::test_exceptions_through_patched_functions"),
    "missing_function": shown(f"{LIVE}::test_imports", "tests/runtime/test_faults.py::test_failing_step_leaves_no_trace"),
    "access": shown("body", "static-local-swap"),
    "tls": shown("thread-local"),
    "visibility": shown("hidden"),
    "buildid": shown(f"{APPLY}::test_for_another_build"),
    "notes": shown("tests/unit/test_baseline.py::test_an_image_made_of_data"),
    "endbr64": shown("hardened"),
    "dlopen": shown("tests/live/test_examples.py::test_plugin"),
    "process": shown("body"),
    "process_access": shown("body", "static-local-swap"),
    "process_revert": shown(f"{REVERT}::test_back_and_forth"),
    "revert": senseless("generations follow each other; the last one is taken back first", f"{REVERT}::test_back_and_forth"),
    "revert_all": shown(f"{REVERT}::test_back_and_forth", f"{REVERT}::test_where_it_already_is"),
    "revert_all_target": shown(f"{REVERT}::test_what_cannot_be_reverted"),
    "revert_and_patch": shown(f"{REVERT}::test_another_history_after_a_revert"),
    "revert_with_invalid": shown(f"{REVERT}::test_what_cannot_be_reverted"),
    "manyprocesses": shown(f"{APPLY}::test_several_processes_are_patched_only_when_asked_for"),
    "stress": shown(f"{LIVE}::test_children", f"{LIVE}::test_patches_come_in_while_threads_fork"),
    "livepatchable": shown(f"{LIVE}::test_disabled_by_the_environment", f"{APPLY}::test_ps_shows_who_can_be_patched"),
    "nolibpulp": shown(f"{APPLY}::test_a_process_without_an_agent"),
    "mprotect_patch": shown(f"{LIVE}::test_absolute_programs_and_no_relro"),
    "seccomp_disable": senseless(PTRACE),
    "chroot": shown("tests/unit/test_baseline.py::test_a_baseline_comes_back_from_a_running_process"),
    "comments": senseless(
        "bundles carry no labels; what runs where is told by build-id and generation",
        f"{APPLY}::test_ps_shows_who_can_be_patched",
    ),
    "libpulp_messages": shown(f"{APPLY}::test_a_bundle_is_shown_tried_and_applied"),
    "dead_pid": shown(f"{APPLY}::test_a_process_that_ended", f"{RUDE}::test_killed_process"),
    "tempfiles": shown("tests/real/test_lua_chain.py::test_nothing_is_left"),
    "self-checks": shown(f"{LIVE}::test_without_unshare_the_agent_lives_in_the_program_s_table"),
    "fuzz": shown(
        "tests/runtime/test_parser.py::test_damaged_payloads",
        "tests/unit/test_bundle.py::test_no_changed_byte_makes_another_bundle",
    ),
}

LIBCARE = {
    "simplest": shown("body"),
    "both": shown(f"{LIVE}::test_program_and_library"),
    "new_func": shown("new-function"),
    "new_var": shown("data-new"),
    "ref_rodata": shown("string-merging", "string-table"),
    "ref_orig_single": shown("body"),
    "ref_orig_threads": shown("thread-local"),
    "ref_glibc": shown("library-data"),
    "ref_glibc_data": shown("library-data"),
    "shared": shown("tests/live/test_examples.py::test_plugin"),
    "shared_ref_glibc": shown(f"{LIVE}::test_imports"),
    "tls_simple": shown("thread-local"),
    "tls_shared": shown("tests/live/test_examples.py::test_server"),
    "ifunc": shown("ifunc"),
    "frame_finish": shown("replaced-while-called", f"{QUIESCENT}::test_it_goes_in_as_soon_as_the_thread_leaves"),
    "fail_busy_single": shown(f"{QUIESCENT}::test_a_thread_in_the_function_blocks_and_is_named"),
    "fail_busy_threads": shown(f"{QUIESCENT}::test_many_threads"),
    "fail_threading": shown(f"{QUIESCENT}::test_threads_and_children_born_meanwhile"),
    "fail_coro": shown(f"{QUIESCENT}::test_frames_on_another_stack_are_seen", f"{QUIESCENT}::test_documented_exceptions"),
    "fail_unpatch": shown(f"{REVERT}::test_a_thread_in_what_is_reverted_blocks"),
    "patchlevel": shown("many-generations"),
    "execve": senseless("a program that is started anew is the newest build"),
    "gcc_ge8_gensrc": shown("cold-add", "gcc-constprop"),
}

LINUX = {
    "basic": shown("body"),
    "multiple stacked": shown("many-generations", f"{REVERT}::test_back_and_forth"),
    "atomic replace": senseless("a generation says what the whole program is; the next one takes its place", "many-generations"),
    "callbacks": shown(f"{COOPERATION}::test_hooks_run_and_may_refuse", f"{COOPERATION}::test_hooks_do_not_run_for_nothing"),
    "pre-patch refuses": shown(f"{COOPERATION}::test_hooks_run_and_may_refuse"),
    "busy target": shown(f"{QUIESCENT}::test_a_thread_in_the_function_blocks_and_is_named"),
    "shadow variables": senseless(MIGRATION),
    "state": senseless("a generation names the one it follows, and fits no other", f"{APPLY}::test_out_of_order"),
    "sysfs": shown(f"{LIVE}::test_status_before_and_after"),
    "hammered function": shown(
        "tests/real/test_lua_busy.py::test_function_in_a_tight_loop", f"{QUIESCENT}::test_a_call_never_meets_two_versions"
    ),
    "ftrace, kprobes": senseless("no byte of code is written, so that tracers are not in the way"),
    "patches in quick succession": shown(f"{LIVE}::test_many_generations", f"{REVERT}::test_many_generations_under_load"),
    "low memory": shown(
        "tests/runtime/test_faults.py::test_failing_step_leaves_no_trace", f"{REFUSALS}::test_arena_that_is_nearly_full"
    ),
    "graph-traced callee": senseless(KERNEL),
    "function asleep": shown(f"{QUIESCENT}::test_sleepers_that_are_woken_get_what_they_waited_for"),
}

OTHERS = {
    "Xen hello, bye, replace": shown("body", "many-generations"),
    "Xen nop": shown("removed-function"),
    "Xen hooks": shown(f"{COOPERATION}::test_hooks_run_and_may_refuse"),
    "Xen expectations": shown(f"{REFUSALS}::test_payload_for_something_else"),
    "Katana struct change, nested, pointers, unions": senseless(
        MIGRATION, "tests/live/test_edits.py::test_changed_layout_is_refused"
    ),
    "Katana several files": shown("new-globals", "moved-function"),
    "Katana new variable": shown("data-new"),
    "Katana const": shown("string-table", "constant-grown"),
    "Kitsune autoarray": shown("array-grown"),
    "Kitsune globalreg, staticxf": shown("data-new", "static-local-swap", "moved-function"),
    "Kitsune automigrate, autoxf, cast, generics, shallow, swapvars, union, uint64, alloctrack, prestartxform": senseless(
        MIGRATION
    ),
    "Kitsune condwait": shown(f"{QUIESCENT}::test_sleepers_that_are_woken_get_what_they_waited_for"),
    "Kitsune deptrack": shown("tests/scons/test_hotpatch_target.py::test_compiles_what_changed_and_never_relinks"),
    "Kitsune argcargv": senseless("the process goes on; main is not called again"),
    "Kitsune plugin": shown("tests/live/test_examples.py::test_plugin"),
    "Popcorn stack transformation": senseless(
        "frames are not moved: calls under way finish in the old code", "replaced-while-called"
    ),
}

PEERS: dict[str, dict[str, Peer]] = {
    "kpatch, integration": KPATCH_INTEGRATION,
    "kpatch, pairs of objects": KPATCH_UNIT,
    "libpulp": LIBPULP,
    "libcare and libcareplus": LIBCARE,
    "Linux selftests, SUSE": LINUX,
    "others": OTHERS,
}
