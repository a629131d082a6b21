"""What `scons hotpatch` asks for: plain data, handed from the build to `hotpatch.run`."""
from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ImageKind = Literal["program", "shared", "module"]


@dataclass(frozen=True)
class ObjectRequest:
    """One object file of an image, up to date when `hotpatch.run` is called."""
    name: str            # names.object_name of the path relative to the top directory: what its object map says
    path: str            # absolute
    from_archive: bool   # it comes by way of a static library: the linker may have left it out


@dataclass(frozen=True)
class LinkRequest:
    """The image's own link, as words after substitution. Relative paths are relative to `HotpatchRequest.top`."""
    driver: list[str]    # the compiler that links: ["g++"]
    cc: list[str]
    cxx: list[str]       # empty where the environment has no C++ compiler
    libs: list[str]      # ["-lm", "build/libutil.a"], without what the tool itself adds
    libpath: list[str]   # ["-Lbuild"]
    flags: list[str]     # LINKFLAGS, or SHLINKFLAGS with its -shared
    sources: list[str]   # inputs that are neither objects nor static libraries: shared libraries, linker scripts
    environment: Mapping[str, str] = field(default_factory=dict)   # for the processes that link


@dataclass(frozen=True)
class ImageRequest:
    """One program or shared library. Its file may be missing, or older than its objects: it is never relinked."""
    name: str            # path relative to the top directory: "build/game"
    path: str            # absolute
    kind: ImageKind
    objects: list[ObjectRequest]
    link: LinkRequest
    init: str = "merge"  # settings.INITIALISERS: what living variables do with a changed initialiser

    @functools.cached_property
    def paths(self) -> dict[str, Path]:
        """Where the file of each object is, by the object's name."""
        return {o.name: Path(o.path) for o in self.objects}

    @functools.cached_property
    def by_name(self) -> dict[str, ObjectRequest]:
        """Its objects."""
        return {o.name: o for o in self.objects}


@dataclass(frozen=True)
class HotpatchRequest:
    """All images of the tree, sorted by name."""
    top: str             # absolute: where the SConstruct is, and the working directory of the build
    directory: str       # absolute HOTRELOAD_DIR: baselines and bundles
    images: list[ImageRequest]
    apply: bool          # False: build and verify bundles only
    silent: bool         # `scons -s`: print failures only
    when: str = "quiescent"   # | "now" | "safepoint": process.apply
    timeout: float = 10.0     # seconds that a process has to take one generation
    guard: float = 0.0        # seconds for which a crash in the newest generation takes it back; 0: no guard
