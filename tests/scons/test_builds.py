"""What users of SCons expect, for each shape of project: the nine points of `check_build`, and that programs run."""
from __future__ import annotations

from pathlib import Path

import pytest

from sconsproject import Edit, Project, check_build, targets_built

HEAD = """
DefaultEnvironment(tools=[])
env = Environment(tools=['gcc', 'g++', 'gnulink', 'ar', 'hotreload'], HOTRELOAD_ARENA='1M')
"""
C_FILES = {
    "src/main.c": '#include <stdio.h>\n#include "value.h"\nint main(void) { printf("%d\\n", value(BASE)); return 0; }\n',
    "src/value.c": '#include "value.h"\nstatic int calls;\nint value(int x) { calls++; return x + calls; }\n',
    "src/value.h": "#define BASE 40\nint value(int x);\n",
}
VALUE_EDIT = ("return x + calls", "return x + calls + 1")


def test_program_in_c(root: Path, tool: Path) -> None:
    script = HEAD + "env.Program('build/prog', Glob('src/*.c'))\n"
    project = Project.create(root, {"SConstruct": script, **C_FILES}, ["src/main.o", "src/value.o", "build/prog"], tool)
    check_build(project, Edit("src/value.c", *VALUE_EDIT, builds=["src/value.o", "build/prog"]))
    project.scons()
    assert project.run("build/prog") == "41\n"
    project.edit("src/value.h", "BASE 40", "BASE 50")
    assert targets_built(project.scons()) == ["build/prog", "src/main.o", "src/value.o"]
    assert project.run("build/prog") == "51\n"


@pytest.mark.parametrize("duplicate", [0, 1])
def test_variant_directory_with_static_library(root: Path, tool: Path, duplicate: int) -> None:
    files = {
        "SConstruct": HEAD + f"Export('env')\nSConscript('src/SConscript', variant_dir='out', duplicate={duplicate})\n",
        "src/SConscript": "Import('env')\nenv.StaticLibrary('value', 'value.c')\n"
                          "env.Program('prog', 'main.c', LIBS=['value'], LIBPATH=['.'])\n",
        **C_FILES}
    project = Project.create(root, files, ["out/main.o", "out/value.o", "out/libvalue.a", "out/prog"], tool)
    if duplicate:
        project.scons()      # SCons leaves its copies of sources behind on -c: what -c goes back to has them
        project.scons("-c")
    check_build(project, Edit("src/value.c", *VALUE_EDIT, builds=["out/value.o", "out/libvalue.a", "out/prog"]))
    project.scons()
    assert project.run("out/prog") == "41\n"


def test_shared_library_and_loadable_module_in_cxx(root: Path, tool: Path) -> None:
    files = {
        "SConstruct": HEAD + "lib = env.SharedLibrary('thing', 'thing.cc')\nenv.LoadableModule('module', 'module.cc')\n"
                             "env.Program('prog', ['main.cc', lib], RPATH=[Literal('\\\\$$ORIGIN')])\n",
        "thing.cc": '#include <string>\nstd::string thing() { static int n = 1; return "thing " + std::to_string(n++); }\n',
        "module.cc": 'extern "C" int module_entry() { return 5; }\n',
        "main.cc": '#include <iostream>\n#include <string>\nstd::string thing();\n'
                   'int main() { try { throw 1; } catch (int) { std::cout << thing() << "\\n"; } }\n'}
    outputs = ["thing.os", "libthing.so", "module.os", "libmodule.so", "main.o", "prog"]
    project = Project.create(root, files, outputs, tool)
    check_build(project, Edit("thing.cc", '"thing "', '"a thing "', builds=["thing.os", "libthing.so", "prog"]))
    project.scons()
    assert project.run("prog") == "thing 1\n"


def test_spaces_in_paths(tmp_path: Path, tool: Path) -> None:
    root = tmp_path / "a project"
    script = HEAD + "env.Program('my build/my prog', Glob('my src/*.c'), HOTRELOAD_DIR='#my state')\n"
    files = {"SConstruct": script, **{path.replace("src/", "my src/"): text for path, text in C_FILES.items()}}
    project = Project.create(root, files, ["my src/value.o", "my build/my prog"], tool.rename(tmp_path / "the tool"))
    check_build(project, Edit("my src/value.c", *VALUE_EDIT, builds=["my src/value.o", "my build/my prog"]))
    project.scons()
    assert project.run("my build/my prog") == "41\n"


def test_clones_and_overrides(root: Path, tool: Path) -> None:
    """An environment and its clones, with the tool, without it, with it again; each builds a program of its own."""
    script = """
DefaultEnvironment(tools=[])
plain = Environment(tools=['gcc', 'g++', 'gnulink', 'ar'], HOTRELOAD_ARENA='1M')
hot = plain.Clone(tools=['hotreload'])
again = hot.Clone(tools=['hotreload'], OBJPREFIX='again-')
plain.Program('cold', Glob('src/*.c'), OBJPREFIX='cold-')
hot.Program('hot', Glob('src/*.c'), CCFLAGS=['-O1'], LINKFLAGS=['-Wl,-O1'], LIBS=['m'])
again.Program('again', Glob('src/*.c'))
hot.Program('off', Glob('src/*.c'), OBJPREFIX='off-', HOTRELOAD_ENABLED=0)
"""
    outputs = ["cold", "hot", "again", "off", *(f"src/{p}value.o" for p in ("", "cold-", "off-", "again-"))]
    project = Project.create(root, {"SConstruct": script, **C_FILES}, outputs, tool)
    check_build(project, Edit("src/value.c", *VALUE_EDIT, builds=outputs))
    project.scons()
    assert [project.run(program) for program in outputs[:4]] == ["41\n"] * 4
    described = {path: b".hotreload.map" in (root / path).read_bytes() for path in outputs}
    assert [path for path in outputs if not described[path]] == ["cold", "off", "src/cold-value.o", "src/off-value.o"]


def test_projects_share_the_compiled_runtime(tmp_path: Path, tool: Path) -> None:
    files = {"SConstruct": HEAD + "env.Program('prog', Glob('*.c'))\n", **{Path(p).name: text for p, text in C_FILES.items()}}
    said = []
    for name in ("one", "two"):
        project = Project.create(tmp_path / name, files, ["prog"], tool)
        project.environment["HOTRELOAD_RUNTIME_CACHE"] = str(tmp_path / "new" / "cache")
        said.append(project.scons().out)
        assert project.run("prog") == "41\n"
    assert "Compiling hotreload runtime" in said[0] and "Compiling hotreload runtime" not in said[1]
    (tool / "runtime" / "agent.c").write_text((tool / "runtime" / "agent.c").read_text() + "\n/* another version */\n")
    project = Project.create(tmp_path / "three", files, ["prog"], tool)
    project.environment["HOTRELOAD_RUNTIME_CACHE"] = str(tmp_path / "new" / "cache")
    compiled = project.scons().out.count("Compiling hotreload runtime")
    assert compiled == 1                     # what is another file is not taken from there
    project.environment["HOTRELOAD_RUNTIME_CACHE"] = str(tmp_path / "three" / "main.c")
    refused = project.scons(code=2)
    assert "HOTRELOAD_RUNTIME_CACHE" in refused.err and "cannot be used" in refused.err and "unset the variable" in refused.err
