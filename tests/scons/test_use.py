"""What users do besides building: options, exclusions, caches, configure tests, and everything that goes wrong."""
from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hotreload_tool import instrument
from sconsproject import Project, check_null_build, targets_built

HEAD = """
DefaultEnvironment(tools=[])
env = Environment(tools=['gcc', 'g++', 'gnulink', 'ar', 'hotreload'], HOTRELOAD_ARENA='1M')
"""
MAIN = "int twice(int x);\nint main(void) { return twice(21) - 42; }\n"
TWICE = "int twice(int x) { return 2 * x; }\n"
MAP = b".hotreload.map"


def project_of(root: Path, tool: Path, rest: str = "env.Program('prog', ['main.c', 'twice.c'])\n", **more: str) -> Project:
    files = {"SConstruct": HEAD + rest, "main.c": MAIN, "twice.c": TWICE, **more}
    return Project.create(root, files, ["main.o", "twice.o", "prog"], tool)


def instrumented(project: Project, path: str) -> bool:
    return MAP in (project.root / path).read_bytes()


# ---- options ---------------------------------------------------------------------------------------------------


def test_help_lists_the_variables_and_starts_nothing(root: Path, tool: Path) -> None:
    project = project_of(root, tool, "Help('of the project')\nenv.Program('prog', ['main.c', 'twice.c'], CC='no-such-cc')\n")
    shown = project.scons("-h").out
    assert "of the project" in shown and "HOTRELOAD_PAD" in shown and "scons hotpatch" in shown
    assert shown.count("HOTRELOAD_ARENA") == 1
    assert project.listing() == {"SConstruct", "main.c", "twice.c"}


def test_silent_build_says_nothing(root: Path, tool: Path) -> None:
    assert project_of(root, tool).scons("-s").out == ""


def test_clean_of_one_target_leaves_the_state_of_others(root: Path, tool: Path) -> None:
    project = project_of(root, tool, "env.Program('prog', ['main.c', 'twice.c'])\nenv.Program('other', ['main.c', 'twice.c'])\n")
    project.scons()
    baselines = {path for path in project.listing() if path.startswith(".hotreload/") and "/runtime/" not in path}
    assert baselines
    project.scons("-c", "prog")
    assert not (root / "prog").exists() and (root / "other").exists()
    assert baselines <= project.listing()


def test_dry_clean_removes_nothing(root: Path, tool: Path) -> None:
    project = project_of(root, tool)
    project.scons()
    before = project.files()
    project.scons("-c", "-n")
    assert project.files() == before


def test_question_mode(root: Path, tool: Path) -> None:
    project = project_of(root, tool)
    project.scons("-q", code=1)
    project.scons()
    project.scons("-q", code=0)


def test_build_from_a_subdirectory(root: Path, tool: Path) -> None:
    project = project_of(root, tool, "Export('env')\nSConscript('sub/SConscript')\n",
                         **{"sub/SConscript": "Import('env')\nenv.Program('inner', 'inner.c', HOTRELOAD_DIR='state')\n",
                            "sub/inner.c": "int main(void) { return 0; }\n"})
    project.scons("-u", cwd="sub")
    assert instrumented(project, "sub/inner")
    assert (root / "state" / "runtime").is_dir()      # anchored at the top, not where it was written
    assert "up to date" in project.scons("-u", cwd="sub").out


def test_state_kept_elsewhere_is_cleaned_there(root: Path, tool: Path, tmp_path: Path) -> None:
    project = project_of(root, tool)
    project.arguments = [f"HOTRELOAD_DIR={tmp_path}/state"]
    before = project.listing()
    project.scons()
    assert list((tmp_path / "state").iterdir())
    project.scons("-c")
    assert project.listing() == before and not (tmp_path / "state").exists()
    project.scons()
    (tmp_path / "state" / "not ours").write_text("")
    project.scons("-c")
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["not ours"]


# ---- on and off ------------------------------------------------------------------------------------------------


def test_switched_off_is_the_plain_build(root: Path, tool: Path, tmp_path: Path) -> None:
    project = project_of(root, tool)
    project.scons("HOTRELOAD=0")
    off = project.output_digests()
    assert not (root / ".hotreload").exists()
    project.write("SConstruct", HEAD.replace(", 'hotreload'", "") + "env.Program('prog', ['main.c', 'twice.c'])\n")
    assert "up to date" in project.scons().out      # same signatures
    assert project.output_digests() == off


def test_switched_off_wins_over_a_target(root: Path, tool: Path) -> None:
    project = project_of(root, tool, "env.Program('prog', ['main.c', 'twice.c'], HOTRELOAD_ENABLED=1)\n")
    project.scons("HOTRELOAD=0")
    assert not instrumented(project, "prog") and not (root / ".hotreload").exists()


def test_switching_rebuilds_both_ways(root: Path, tool: Path) -> None:
    project = project_of(root, tool)
    project.scons()
    assert instrumented(project, "prog")
    assert targets_built(project.scons("HOTRELOAD=0")) == ["main.o", "prog", "twice.o"]
    assert not instrumented(project, "prog")
    assert targets_built(project.scons()) == ["main.o", "prog", "twice.o"]
    assert instrumented(project, "prog")


@pytest.mark.parametrize("arguments", [[], ["HOTRELOAD=0"]])
def test_header_can_be_included_either_way(root: Path, tool: Path, arguments: list[str]) -> None:
    source = "#include <hotreload.h>\nint main(void) { return 0; }\n"
    project = project_of(root, tool, "env.Program('prog', 'main.c')\n")
    project.write("main.c", source)
    project.scons(*arguments)
    project.run("prog")


def test_headers_of_ours_hide_none_of_the_users(root: Path, tool: Path) -> None:
    """The runtime's own headers lie where <hotreload.h> lies; a user's header of the same name is the one found."""
    project = project_of(root, tool, "env.Program('prog', 'main.c', CPPPATH=['inc'])\n",
                         **{"inc/internal.h": "#define RESULT 0\n"})
    project.write("main.c", "#include <internal.h>\nint main(void) { return RESULT; }\n")
    project.scons()
    project.run("prog")


def test_excluded_source_stays_as_the_compiler_made_it(root: Path, tool: Path) -> None:
    project = project_of(root, tool)
    project.scons()
    assert instrumented(project, "twice.o")
    built = project.scons("HOTRELOAD_EXCLUDE=twi*.c")
    assert targets_built(built) == ["prog", "twice.o"]
    assert not instrumented(project, "twice.o") and instrumented(project, "main.o")
    project.run("prog")


def test_excluded_by_source_path_in_a_variant_directory(root: Path, tool: Path) -> None:
    project = Project.create(root, {
        "SConstruct": HEAD + "Export('env')\nSConscript('src/SConscript', variant_dir='out', duplicate=0)\n",
        "src/SConscript": "Import('env')\nenv.Program('prog', ['main.c', 'lib/twice.c'])\n",
        "src/main.c": MAIN, "src/lib/twice.c": TWICE}, tool=tool)
    project.scons("HOTRELOAD_EXCLUDE=src/lib/*")
    assert instrumented(project, "out/main.o") and not instrumented(project, "out/lib/twice.o")


def test_program_without_any_instrumented_object(root: Path, tool: Path) -> None:
    project = project_of(root, tool)
    project.scons("HOTRELOAD_EXCLUDE=*.c")
    project.run("prog")
    assert not any((root / ".hotreload/baselines").glob("*/image"))


def test_objects_are_named_by_their_path_in_the_build(root: Path, tool: Path) -> None:
    project = project_of(root, tool, "env.Program('prog', ['main.c', env.Object('out/two', 'twice.c')])\n")
    project.write("twice.c", "static int hidden = 21;\nint twice(int x) { return x + hidden++; }\n")
    project.scons()
    assert b"hidden~out/two.o" in (root / "out/two.o").read_bytes()


def headers_digest(project: Project, path: str) -> str | None:
    return instrument.read_map(project.root / path).headers


def test_objects_know_the_headers_they_were_compiled_with(root: Path, tool: Path) -> None:
    """By content, through other headers too, and nothing else: neither the source nor a header not included."""
    project = project_of(root, tool, "env.Program('prog', ['main.c', 'twice.c'], CPPPATH=['inc'])\n",
                         **{"inc/outer.h": '#include "inner.h"\n', "inc/inner.h": "#define ZERO 0\n", "inc/other.h": "\n"})
    project.write("main.c", '#include "outer.h"\n' + MAIN)
    project.scons()
    first = headers_digest(project, "main.o"), headers_digest(project, "twice.o")
    assert first[0] and first[1] and first[0] != first[1]
    project.edit("main.c", "- 42", "- 42 + ZERO")
    project.edit("twice.c", "2 * x", "x + x")
    project.write("inc/other.h", "#define OTHER 1\n")
    project.scons()
    assert (headers_digest(project, "main.o"), headers_digest(project, "twice.o")) == first
    project.edit("inc/inner.h", "ZERO 0", "ZERO 00")
    project.scons()
    assert headers_digest(project, "main.o") != first[0] and headers_digest(project, "twice.o") == first[1]


def test_assembler_sources_and_split_debug_information(root: Path, tool: Path) -> None:
    """Objects of other compilers' commands, and a compiler that makes two files."""
    text = '.text\n.globl twice\n.type twice,@function\ntwice:\n lea (%rdi,%rdi),%eax\n ret\n.size twice,.-twice\n'
    rest = """
env.Tool('as')
env.Program('prog', ['main.c', 'twice.S'], CCFLAGS=['-gsplit-dwarf'])
"""
    project = project_of(root, tool, rest, **{"twice.S": text + '.section .note.GNU-stack,"",@progbits\n'})
    project.scons()
    assert instrumented(project, "main.o") and instrumented(project, "twice.o")
    project.run("prog")
    check_null_build(project)


def test_target_declared_twice_is_one_image(root: Path, tool: Path) -> None:
    project = project_of(root, tool, "env.Program('prog', ['main.c', 'twice.c'])\n" * 2)
    built = project.scons()
    [link] = [line for line in built.lines if line.startswith("gcc -o prog ")]
    assert link.count("/agent.o") == 1 and link.count("--build-id") == 1


def test_configure_tests_are_plain_programs(root: Path, tool: Path) -> None:
    rest = """
conf = Configure(env)
found = conf.CheckLib('m', 'cos', autoadd=0), conf.CheckHeader('stdio.h'), conf.CheckFunc('no_such_function')
assert tuple(map(bool, found)) == (True, True, False), found
env = conf.Finish()
env.Program('prog', ['main.c', 'twice.c'])
"""
    project = project_of(root, tool, rest)
    project.scons()
    log = (root / "config.log").read_text()
    assert "gcc" in log and "hotreload" not in log.replace("HOTRELOAD", "").replace(str(tool), "")
    assert instrumented(project, "prog")


def test_tools_may_be_loaded_in_any_order(root: Path, tool: Path) -> None:
    project = project_of(root, tool)
    order = "tools=['hotreload', 'g++', 'gcc', 'ar', 'gnulink']"
    project.write("SConstruct", f"DefaultEnvironment(tools=[])\nenv = Environment({order}, HOTRELOAD_ARENA='1M')\n"
                                "env.Program('prog', ['main.c', 'twice.c'])\nenv.SharedLibrary('twice', 'twice.c')\n")
    built = project.scons()
    assert built.out.count("--build-id") == 2 and built.out.count("-ffunction-sections") == 3
    assert instrumented(project, "prog") and instrumented(project, "libtwice.so")


def test_cache_gives_instrumented_objects(root: Path, tool: Path, tmp_path: Path) -> None:
    project = project_of(root, tool, f"env.CacheDir({str(tmp_path / 'cache')!r})\nenv.Program('prog', ['main.c', 'twice.c'])\n")
    project.scons()
    first = project.output_digests()
    project.scons("-c")
    built = project.scons()
    assert "Retrieved `twice.o' from cache" in built.out and targets_built(built) == []
    assert project.output_digests() == first
    check_null_build(project)


# ---- what goes wrong -------------------------------------------------------------------------------------------


def test_bad_value_is_one_sentence(root: Path, tool: Path) -> None:
    failed = project_of(root, tool).scons("HOTRELOAD_ARENA=tiny", code=2)
    assert "scons: *** hotreload: HOTRELOAD_ARENA: 'tiny' is not a number of bytes" in failed.err
    assert "Traceback" not in failed.err


def test_bad_value_set_after_loading_is_one_sentence(root: Path, tool: Path) -> None:
    failed = project_of(root, tool, "env.Program('prog', 'main.c', HOTRELOAD_PAD='wide')\n").scons(code=2)
    assert "HOTRELOAD_PAD: 'wide' is not a number of bytes" in failed.err and "Traceback" not in failed.err


@pytest.mark.parametrize("builder", ["Program", "Object"])
def test_unsupported_compiler_is_one_sentence(root: Path, tool: Path, builder: str) -> None:
    project = project_of(root, tool, f"env.{builder}('made', 'main.c', CC=File('#cc').abspath)\n")
    project.write("cc", '#!/bin/sh\necho "cc: cannot do this" >&2\nexit 1\n')
    (root / "cc").chmod((root / "cc").stat().st_mode | stat.S_IXUSR)
    failed = project.scons(code=2)
    assert "cc cannot be used" in failed.err and "cc: cannot do this" in failed.err
    assert "Traceback" not in failed.err


def test_lto_object_is_refused_by_name(root: Path, tool: Path) -> None:
    failed = project_of(root, tool, "env.Program('prog', ['main.c', 'twice.c'], CCFLAGS=['-flto'])\n").scons(code=2)
    assert "scons: *** [main.o] hotreload: main.o" in failed.err
    assert "lto" in failed.err.lower() and "Traceback" not in failed.err


def test_refused_object_is_not_mistaken_for_a_good_one(root: Path, tool: Path) -> None:
    """Refused, and then the source goes back to what was built before: the object must be built again."""
    project = project_of(root, tool)
    project.scons()
    good = project.output_digests()
    with open(tool / "hotreload_tool" / "instrument.py", "a") as source:
        source.write("""
_plain_instrument_file = instrument_file


def instrument_file(path, *, object_name, options=Options()):
    if b"refuse_me" in open(path, "rb").read():
        raise _refused("test", object_name, "refuse_me", "it says so", "rename it")
    return _plain_instrument_file(path, object_name=object_name, options=options)
""")
    project.scons()
    project.write("twice.c", TWICE + "int refuse_me;\n")
    failed = project.scons(code=2)
    assert "[twice.o] hotreload: twice.o: refuse_me: it says so; rename it" in failed.err
    assert not (root / "twice.o").exists()
    project.write("twice.c", TWICE)
    project.scons()
    assert project.output_digests() == good
    check_null_build(project)


def test_image_that_cannot_be_filed_fails_the_build(root: Path, tool: Path) -> None:
    project = project_of(root, tool)
    with open(tool / "hotreload_tool" / "baseline.py", "a") as source:
        source.write("""

def _full(self, path, *rest):
    raise OSError(28, "No space left on device", str(path))


Store.file_image = _full
""")
    failed = project.scons(code=2)
    assert "scons: *** [prog] " in failed.err and "No space left on device" in failed.err
    assert not (root / "prog").exists()


def test_missing_python_package_is_one_sentence(root: Path, tool: Path) -> None:
    project = project_of(root, tool)
    instrument = tool / "hotreload_tool" / "instrument.py"
    instrument.write_text("import no_such_package\n")
    failed = project.scons(code=2)
    assert "the Python package 'no_such_package' is missing" in failed.err and "Traceback" not in failed.err


def test_compile_error_is_the_compilers(root: Path, tool: Path) -> None:
    project = project_of(root, tool)
    project.write("twice.c", "int twice(int x) { return 2 * y; }\n")
    failed = project.scons(code=2)
    assert "twice.c:1:" in failed.err and "hotreload:" not in failed.err


def test_build_as_another_user_leaves_nothing_in_the_tool(root: Path, tool: Path) -> None:
    """The tool may be installed where the user cannot write: a build writes nothing into it."""
    before = Project(tool, []).files()
    project_of(root, tool).scons()
    assert Project(tool, []).files() == before
    assert not any("__pycache__" in path for path in before) or os.environ.get("PYTHONDONTWRITEBYTECODE") is None
