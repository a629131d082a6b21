"""Objects of other languages go through the same path: instrumented, linked, run, and one function patched live."""
from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from patcher import Live

from hotreload_tool import compiler

# `answer` is called through a pointer that was stored at the start; it counts its calls in a variable of its language.
MAIN_C = """
#include <stdio.h>
int answer(int);
static int (*volatile chosen)(int) = answer;
int main(void)
{
  char line[64];
  int n;
  puts("ready");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    if (sscanf(line, "%d", &n) == 1)
      printf("%d\\n", chosen(n));
    fflush(stdout);
  }
  return 0;
}
"""

FORTRAN = """
module state
  implicit none
  integer, save :: calls = 0
contains
  integer function scaled(n)
    integer, intent(in) :: n
    real :: weights(3) = (/ 1.5, 2.5, 4.0 /)
    scaled = int(weights(mod(n, 3) + 1) * 2.0) + 1
  end function
end module

integer(c_int) function answer(n) bind(c)
  use iso_c_binding
  use state
  implicit none
  integer(c_int), value :: n
  character(len=16) :: text
  calls = calls + 1
  write (text, '(I4)') n
  answer = 1000 * calls + len_trim(adjustl(text)) * 100 + scaled(n)
end function
"""

RUST = """
#![no_std]
use core::sync::atomic::{AtomicI32, Ordering};
static CALLS: AtomicI32 = AtomicI32::new(0);
const WEIGHTS: [i32; 3] = [3, 5, 8];

#[inline(never)]
fn scaled(n: i32) -> i32 {
    *WEIGHTS.get((n % 3) as usize).unwrap_or(&0) + 1
}

#[no_mangle]
pub extern "C" fn answer(n: i32) -> i32 {
    let calls = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
    let digits = if n < 10 { 1 } else { 2 };
    1000 * calls + digits * 100 + scaled(n)
}

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
"""

D = """
module plugin;
extern (C):
__gshared int calls;
private immutable int[3] weights = [3, 5, 8];
private int scaled(int n) { pragma(inline, false); return weights[n % 3] + 1; }
int answer(int n)
{
    int digits = 1;
    calls++;
    for (int rest = n; rest >= 10; rest /= 10)
        digits++;
    return 1000 * calls + digits * 100 + scaled(n);
}
"""

ADA = """
package body Plugin is
   Calls : Integer := 0;
   type Table is array (0 .. 2) of Integer;
   Weights : constant Table := (3, 5, 8);
   function Scaled (N : Integer) return Integer is
   begin
      return Weights (N mod 3) + 1;
   end Scaled;
   function Answer (N : Integer) return Integer is
   begin
      Calls := Calls + 1;
      if N < 10 then
         return 1000 * Calls + 100 + Scaled (N);
      end if;
      return 1000 * Calls + 200 + Scaled (N);
   end Answer;
end Plugin;
"""
ADA_SPEC = """
package Plugin is
   function Answer (N : Integer) return Integer;
   pragma Export (C, Answer, "answer");
end Plugin;
"""


@dataclass(frozen=True)
class Language:
    command: Sequence[str]
    source: str
    text: str
    edit: tuple[str, str]                    # of `scaled`: adds 4 more
    libraries: Sequence[str] = ()
    linker: Sequence[str] = ("gcc",)
    beside: tuple[str, str] = ("", "")       # another file, not compiled on its own


GCC_FLAGS = ("-O2", "-g", "-ffunction-sections", "-fdata-sections", "-fno-ipa-ra", "-fPIE")
LANGUAGES = {
    "fortran": Language(["gfortran", *GCC_FLAGS], "plugin.f90", FORTRAN, ("* 2.0) + 1", "* 2.0) + 5"), ["-lgfortran", "-lm"]),
    "rust": Language(["rustc", "--crate-type=lib", "--emit=obj", "-C", "opt-level=2", "-C", "panic=abort", "-C",
                      "relocation-model=pic", "-C", "codegen-units=1", "-C", "debuginfo=2", "--edition=2021"],
                     "plugin.rs", RUST, ("(&0) + 1", "(&0) + 5")),
    "d": Language(["gdc", *GCC_FLAGS, "-fno-druntime"], "plugin.d", D, ("weights[n % 3] + 1", "weights[n % 3] + 5")),
    "ada": Language(["gcc", *GCC_FLAGS, "-gnatp"], "plugin.adb", ADA, ("(N mod 3) + 1", "(N mod 3) + 5"),
                    beside=("plugin.ads", ADA_SPEC)),
}


def unavailable(name: str, language: Language) -> str:
    """Why there is no such compiler here; "" if there is."""
    needed = {"ada": "gnatmake"}.get(name, language.command[0])
    return "" if shutil.which(needed) else f"{needed} is not installed"


@pytest.mark.parametrize("name", LANGUAGES)
def test_function_of_another_language_is_patched_live(name: str, runtime: Path, stack: ExitStack, tmp_path: Path) -> None:
    language = LANGUAGES[name]
    reason = unavailable(name, language)
    if reason:
        pytest.skip(reason)
    c_flags = compiler.flags(["gcc"], "c", {"PATH": "/usr/bin:/bin"})
    suffix = Path(language.source).suffix
    compilers = {".c": ["gcc", "-O2", *c_flags], suffix: compile_command(language, suffix, tmp_path)}
    files = {language.source: language.text, "main.c": MAIN_C}
    live = Live(stack, runtime, files, compilers, language.linker, language.libraries)
    first = [live.ask("4"), live.ask("12")]
    assert first == expected(name, 1, 1)
    assert live.patch(**{language.source.replace(".", "_"): language.edit})
    second = [live.ask("4"), live.ask("12")]
    assert second == expected(name, 3, 5) != expected(name, 3, 1)


def expected(name: str, call: int, added: int) -> list[str]:
    """Answers to 4 and 12: they count on from `call`; `scaled` adds `added`."""
    weights = (3, 5, 8)
    return [str(1000 * (call + i) + len(str(n)) * 100 + weights[n % 3] + added) for i, n in enumerate((4, 12))]


def compile_command(language: Language, suffix: str, folder: Path) -> Sequence[str]:
    """rustc spells `-c SOURCE` otherwise; Ada's specification lies beside the body."""
    if suffix == ".adb":
        (folder / language.beside[0]).write_text(language.beside[1])
        return [*language.command, f"-I{folder}"]
    if suffix != ".rs":
        return language.command
    wrapper = folder / "rustc-c"
    words = " ".join(language.command)
    wrapper.write_text(f'#!/bin/sh\n# -c SOURCE -o OBJECT\nexec {words} "$2" -o "$4"\n')
    wrapper.chmod(0o755)
    return [str(wrapper)]
