"""A program of `case.h` that is built once, and edited and patched by a test step by step: for what a case cannot say."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from casetools import Builder, configurations

from hotreload_tool import bundle, hotpatch, process
from hotreload_tool.baseline import Store
from hotreload_tool.objectmaps import ObjectMaps
from livetools import Program, clean_environment

CONFIGURATION = next(c for c in configurations(False) if c.compiler == "gcc")

BEFORE = r"""
#include "case.h"
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
NOINLINE void say(const std::string &text) { std::puts(text.c_str()); std::fflush(stdout); }
NOINLINE const char *setting(const char *name) { const char *value = std::getenv(name); return value ? value : ""; }
"""
ANSWER = r"""
void answer(const char *line) { %s say(std::string("version %d ") + line); }
"""
COUNTED = r"""
static int made;
struct Counted {
  std::string name;
  NOINLINE explicit Counted(const char *n) : name(n) { made++; say("made " + name); }
  NOINLINE ~Counted() { say("destroyed " + name); }
};
"""


@dataclass
class Bench:
    """One program, built once, and edits of it."""
    builder: Builder
    store: Store
    build_id: str
    program: Path

    @contextmanager
    def process(self) -> Iterator[Program]:
        environment = clean_environment(HOTRELOAD_RUNTIME_DIR=os.environ["HOTRELOAD_RUNTIME_DIR"])
        child = Program([self.program], env=environment)
        try:
            child.ask("hello", r"version 1 hello\n")
            yield child
        finally:
            child.kill()

    def make(self, source: str, free_from: int = 0) -> Path:
        """The bundle of the next generation."""
        version = self.builder.case.first
        version.source.write_text(source)
        request = self.builder.request(self.program, self.builder.objects(version), "merge")
        made = hotpatch.make_generation(self.store, self.build_id, request, ObjectMaps(self.store, request.objects), free_from)
        assert made is not None
        return made

    def apply(self, child: Program, made: Path, timeout: float = 60.0, when: str = "quiescent") -> process.ApplyResult:
        patch = bundle.read(made).image(self.build_id)
        assert patch is not None
        return process.apply(child.pid, [self.store.payload(patch[1])], when=when, timeout=timeout)
