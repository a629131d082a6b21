"""Images and payloads that several of the runtime's tests use."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtimetools import NOBODY, SOCKETS, SOURCES, Image, Payload, Recipe, build, make_payload

from livetools import runtime_directory

NEW_VALUE = """
extern int counter;
int twice(int);
static int calls;
int value_new(void) { return 1000 * ++calls + counter + twice(0); }
"""
NEWER_VALUE = """
int value_new(void) { return -1; }
int twice_new(int x) { return 3 * x; }
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runtime")


@pytest.fixture(scope="session")
def target(folder: Path) -> Image:
    """tests/runtime/target.c with an agent thread."""
    return build(folder, "target", [SOURCES / "target.c"])


@pytest.fixture(scope="session")
def polling(folder: Path) -> Image:
    """The same in poll mode."""
    return build(folder, "polling", [SOURCES / "target.c"], flags=["-DPOLLS"])


@pytest.fixture(scope="session")
def library(folder: Path) -> Image:
    return build(folder, "liblibrary.so", [SOURCES / "library.c"], flags=["-fPIC"], link=["-shared"])


@pytest.fixture(scope="session")
def new_value(folder: Path, target: Image) -> Payload:
    """Generation 1 of `target`: value() gives 1000, 2000, … plus the counter."""
    return make_payload(folder, Recipe(target, NEW_VALUE, {"value": "value_new"}))


@pytest.fixture(scope="session")
def newer_value(folder: Path, target: Image, new_value: Payload) -> Payload:
    """Generation 2 of `target`: value() gives -1, twice() the triple."""
    return make_payload(folder, Recipe(target, NEWER_VALUE, {"value": "value_new", "twice": "twice_new"}, previous=new_value))


@pytest.fixture(scope="session")
def new_polling(folder: Path, polling: Image) -> Payload:
    return make_payload(folder, Recipe(polling, NEW_VALUE, {"value": "value_new"}))


@pytest.fixture(scope="session")
def new_library(folder: Path, library: Image) -> Payload:
    """Generation 1 of the library: its thread-local and its counter, in thousands."""
    source = f"""
    extern int library_counter;
    extern void *__tls_get_addr(unsigned long *);
    unsigned long tls_index[2] = {{0, {library.symbols['library_tls']}}};
    int library_new(void) {{ return 1000 * *(int *)__tls_get_addr(tls_index) + library_counter++; }}
    """
    return make_payload(folder, Recipe(library, source, {"library_value": "library_new"}, tls=["tls_index"]))


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own: others leave sockets of processes they killed."""
    with runtime_directory() as path:
        monkeypatch.setenv(SOCKETS, str(path))
        yield path


@pytest.fixture
def unprivileged(sockets: Path) -> Path:
    """The runtime directory belongs to the user that `start_unprivileged` takes."""
    if os.geteuid() == 0:
        os.chown(sockets, NOBODY, NOBODY)
    return sockets
