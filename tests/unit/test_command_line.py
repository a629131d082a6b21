"""Command lines of compilers, taken apart and put together again."""
from __future__ import annotations

from pathlib import Path

import pytest

from hotreload_tool import command_line
from hotreload_tool.command_line import Invocation, parse


def kind(asked: Invocation) -> str:
    if asked.elsewhere:
        return "elsewhere"
    return "compiles" if asked.compile_only else "links" if asked.links else "nothing"


@pytest.mark.parametrize("words, expected", [
    ("-c a.c", "compiles"), ("-c a.c -o b.o", "compiles"), ("-O2 -Wall -ca.c", "nothing"), ("a.c", "links"),
    ("a.o -o prog", "links"), ("-shared a.o -o x.so", "links"), ("-E a.c", "elsewhere"), ("-S a.c", "elsewhere"),
    ("-M a.c", "elsewhere"), ("-MM -MF x a.c", "elsewhere"), ("-c -MD -MF x a.c", "compiles"), ("-###  a.c", "elsewhere"),
    ("--version", "elsewhere"), ("-v", "nothing"), ("-print-search-dirs", "elsewhere"), ("-dumpmachine", "elsewhere"),
    ("-fsyntax-only a.c", "elsewhere"), ("-c -emit-llvm a.c", "elsewhere"), ("-c a.c b.c -o c.o", "elsewhere"), ("", "nothing"),
    ("-Q --help=optimizers", "elsewhere"), ("-Q -c a.c", "compiles")])
def test_what_is_asked_for(words: str, expected: str) -> None:
    assert kind(parse(words.split())) == expected


def test_arguments_are_no_files() -> None:
    asked = parse("-I inc -D X.c -include pre.h -MF dep.c -Xlinker y.o -isystem z.c -o out.c a.c -T ld.c lib.a".split())
    assert [s.path for s in asked.sources] == ["a.c"]
    assert asked.inputs == ("lib.a",)
    assert asked.output == "out.c"


@pytest.mark.parametrize("words, expected", [
    ("a.c b.cc c.C d.S e.s f.i g.ii", "c c++ c++ assembler assembler c c++"),
    ("a.f90 b.m c.h", "other other other"),
    ("-x c++ a.c -x none b.c", "c++ c"), ("-xc a.unknown", "c"), ("-x c -", "c"), ("-x c-header a.h", "other"),
    ("-x assembler-with-cpp a.c", "assembler"), ("--language=c++ a.c", "c++")])
def test_languages(words: str, expected: str) -> None:
    assert [s.language for s in parse(words.split()).sources] == expected.split()


@pytest.mark.parametrize("words, expected", [
    ("-c d/a.c", "a.o"), ("-c a.b.cc", "a.b.o"), ("-c a.c -o x/y", "x/y"), ("-c a.c -ox", "x"), ("-c --output=q a.c", "q")])
def test_where_the_object_goes(words: str, expected: str) -> None:
    asked = parse(words.split())
    assert asked.object_of(asked.sources[0]) == expected


def test_response_files_are_opened(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.write_text("b.c 'c d.c'\n-o \"e f\"")
    outer.write_text(f"-c a.c @{inner}")
    asked = parse([f"@{outer}", "@nowhere"])
    assert [s.path for s in asked.sources] == ["a.c", "b.c", "c d.c"]
    assert "@nowhere" in asked.words and asked.output == "e f" and asked.elsewhere, "several sources with one -o"


def test_a_response_file_that_names_itself_ends(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.write_text(f"a.c @{loop}")
    assert len(parse([f"@{loop}"]).sources) == 20


def test_one_command_as_several() -> None:
    asked = parse("-O2 -x c a.x -x none b.cc c.o -Wl,-z,now -L dir -lm -shared -pthread -o out -DX -z defs".split())
    assert command_line.can_be_split(asked)
    first, second = asked.sources
    assert command_line.compile_words(asked, first, "1.o") == "-O2 -x c a.x -x none -pthread -DX -c -o 1.o".split()
    assert command_line.compile_words(asked, second, "2.o") == "-O2 -x c -x none b.cc -pthread -DX -c -o 2.o".split()
    linked = command_line.link_words(asked, {first.at: "1.o", second.at: "2.o"})
    assert linked == "-O2 1.o 2.o c.o -Wl,-z,now -L dir -lm -shared -pthread -o out -DX -z defs".split()
    assert (asked.shared, asked.libraries, asked.directories) == (True, ("m",), ("dir",))


@pytest.mark.parametrize("word", ["-save-temps", "-save-temps=obj", "--coverage", "-gsplit-dwarf", "-MMD", "-fdump-tree-all"])
def test_what_leaves_files_beside_the_object_is_not_split(word: str) -> None:
    assert not command_line.can_be_split(parse([word, "a.c", "-o", "prog"]))


def test_partial_and_bare_links() -> None:
    assert parse(["-r", "a.o", "-o", "b.o"]).partial
    assert parse(["-nostdlib", "a.o"]).bare and parse(["-nodefaultlibs", "a.o"]).bare
    assert not parse(["-shared", "-nostdlib", "a.o", "-lstdc++", "-lc", "-lgcc_s"]).bare, "as libtool does it"


def test_symbols_stay() -> None:
    cut = "-Wl,-retain-symbols-file -Wl,x.exports -Wl,--retain-symbols-file=y -Wl,-retain-symbols-file,z -Wl,-s -s"
    words = f"a.o {cut} b.o -Wl,-z,now -Xlinker -s".split()
    assert command_line.with_symbols(words) == "a.o b.o -Wl,-z,now -Xlinker -s".split()
    assert command_line.strips(["-Wl,--strip-all"]) and not command_line.strips(["-shared"])
