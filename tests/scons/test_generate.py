"""`generate()` in this process: what it puts into an environment, once, and what it leaves alone."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from SCons.Environment import Environment
from SCons.Errors import UserError

import hotreload_tool
from hotreload_tool.scons_tool import INSTRUMENTING
from sconsproject import REPO

TOOLS = ["gcc", "g++", "gnulink", "ar"]


def plain(**kw: Any) -> Any:
    return Environment(tools=TOOLS, **kw)


def with_tool(**kw: Any) -> Any:
    env = plain(**kw)
    hotreload_tool.generate(env)
    return env


def compile_line(env: Any) -> str:
    return str(env.subst("$CCCOM", target=env.File("x.o"), source=env.File("x.c")))


def object_contents(env: Any) -> bytes:
    action = env["BUILDERS"]["StaticObject"].builder.action
    return bytes(action.get_contents([env.File("x.o")], [env.File("x.c")], env))


def link_contents(env: Any, builder: str) -> bytes:
    return bytes(env["BUILDERS"][builder].action.get_contents([env.File("x")], [env.File("x.o")], env))


def test_twice_is_once() -> None:
    env = with_tool()
    once = (compile_line(env), object_contents(env), env["_LIBFLAGS"], link_contents(env, "Program"))
    hotreload_tool.generate(env)
    assert (compile_line(env), object_contents(env), env["_LIBFLAGS"], link_contents(env, "Program")) == once
    assert compile_line(env).count("-ffunction-sections") == 1


def test_clone_with_the_tool_again_is_once() -> None:
    env = with_tool()
    clone = env.Clone()
    hotreload_tool.generate(clone)
    assert compile_line(clone) == compile_line(env)
    assert object_contents(clone) == object_contents(env)


@pytest.mark.parametrize("builder", ["Program", "SharedLibrary", "LoadableModule"])
def test_environment_without_the_tool_keeps_its_signatures(builder: str) -> None:
    env = plain()
    before = (compile_line(env), object_contents(env), link_contents(env, builder))
    clone = env.Clone()          # shares its builders with env
    hotreload_tool.generate(clone)
    assert object_contents(clone) != before[1]
    assert (compile_line(env), object_contents(env), link_contents(env, builder)) == before


def test_disabled_environment_or_target_keeps_its_signatures() -> None:
    env = plain()
    before = (object_contents(env), link_contents(env, "Program"))
    hotreload_tool.generate(env)
    off = env.Override({"HOTRELOAD_ENABLED": 0})
    assert (object_contents(off), link_contents(off, "Program")) == before


def test_tests_of_configure_ask_the_plain_compiler() -> None:
    env = plain()
    before = object_contents(env)
    hotreload_tool.generate(env)
    assert object_contents(env.Override({"SCONF_NODE": True})) == before


def test_flags_survive_overrides_and_can_be_emptied() -> None:
    env = with_tool()
    assert "-ffunction-sections" in compile_line(env.Override({"CCFLAGS": "-O0"}))
    emptied = compile_line(env.Override({"HOTRELOAD_CCFLAGS": []}))
    assert "-ffunction-sections" not in emptied and "-DHOTRELOAD=1" in emptied


def test_where_the_tool_is_installed_is_no_part_of_signatures() -> None:
    assert b"-idirafter" not in object_contents(with_tool())
    assert "-idirafter" in compile_line(with_tool())


@pytest.mark.parametrize("variable, one, other", [("HOTRELOAD_PAD", 32, 64), ("_HOTRELOAD_SIGNATURE", "a", "b")])
def test_settings_are_part_of_signatures(variable: str, one: Any, other: Any) -> None:
    env = with_tool()
    signatures = {object_contents(env.Override({variable: value})) for value in (one, other)}
    assert len(signatures) == 2


def test_excluding_a_source_changes_its_signature_only() -> None:
    env = with_tool()
    everything = object_contents(env)
    assert object_contents(env.Override({"HOTRELOAD_EXCLUDE": ["other.c"]})) == everything
    assert object_contents(env.Override({"HOTRELOAD_EXCLUDE": ["x.*"]})) != everything


def test_keywords_set_what_the_environment_does_not() -> None:
    env = plain(HOTRELOAD_PAD=16)
    hotreload_tool.generate(env, HOTRELOAD_PAD=48, HOTRELOAD_ARENA="1M")
    assert (env["HOTRELOAD_PAD"], env["HOTRELOAD_ARENA"]) == (16, "1M")


def test_bad_values_are_user_errors() -> None:
    with pytest.raises(UserError, match="HOTRELOAD_STUBS: 'magic' is not a kind of stub"):
        hotreload_tool.generate(plain(HOTRELOAD_STUBS="magic"))


def test_no_compiler_is_a_user_error() -> None:
    env = Environment(tools=[], ENV={"PATH": "/nonexistent"})
    with pytest.raises(UserError, match="neither gcc nor clang"):
        hotreload_tool.generate(env)
    assert not hotreload_tool.exists(env)


def test_what_makes_an_object_is_known(tmp_path: Path) -> None:
    """Another version of these modules instruments every object again, so none may be missing; and none needs to be there
    that objects do not depend on."""
    (tmp_path / "a.c").write_text("int f(void) { return 1; }\n")
    subprocess.run(["gcc", "-g", "-c", "a.c"], cwd=tmp_path, check=True)
    code = ("import sys; from hotreload_tool import building, settings; "
            "chosen = settings.check({s.name: s.default for s in settings.SETTINGS}); "
            "building.instrument_object(sys.argv[1], 'a.o', chosen); "
            "print(*(m.__file__ for name, m in sys.modules.items() if name.startswith('hotreload_tool')), sep='\\n')")
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "a.o"], cwd=REPO, check=True, capture_output=True, text=True)
    package = Path(hotreload_tool.__file__).parent
    assert {Path(line).relative_to(package).with_suffix("").as_posix() for line in ran.stdout.splitlines()} == set(INSTRUMENTING)
