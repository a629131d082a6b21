"""Questions that the parts of the SCons tool ask an environment: does the tool work here, with what settings?"""
from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from SCons.Errors import BuildError, UserError

from . import settings
from .settings import SettingError, Settings

Env = Any
Node = Any
Nodes = list[Any]


def checked(env: Env) -> Settings:
    """The settings of `env`. Raises UserError."""
    try:
        return settings.check(env)
    except SettingError as e:
        raise UserError(str(e)) from None


def active(env: Env) -> bool:
    """Whether `env` asked for the tool. Tests of Configure are built without it: they ask what the compiler does."""
    return _settings_if_active(env) is not None


def _settings_if_active(env: Env) -> Settings | None:
    found = checked(env) if env.get("_HOTRELOAD_SIGNATURE") and not env.get("SCONF_NODE") else None
    return found if found is not None and found.enabled else None


def instruments(env: Env, source: Nodes) -> bool:
    """Whether the object made from `source` is instrumented: a static question, so that a signature can hold it."""
    excluded = _settings_if_active(env) if source else None
    if excluded is None:
        return False
    if not excluded.exclude or not hasattr(source[0], "srcnode"):
        return True
    return not excluded.excludes(relative_path(env, source[0].srcnode()))


def relative_path(env: Env, node: Node) -> str:
    """The path of `node` relative to the directory of the top SConstruct, with slashes."""
    return os.path.relpath(str(node.get_abspath()), str(env.Dir("#").get_abspath()))


def words(env: Env, text: str, **kw: Any) -> list[str]:
    """`text` after substitution, as the words of one command line."""
    return [str(word) for line in env.subst_list(text, **kw) for word in line]


def process_environment(env: Env) -> dict[str, str]:
    """The variables that commands of `env` run with."""
    return {name: str(value) for name, value in env["ENV"].items()}


def state_directory(env: Env) -> str:
    """The absolute path of HOTRELOAD_DIR."""
    return str(env.Dir(checked(env).directory).get_abspath())


@contextlib.contextmanager
def errors_for_people(node: Node) -> Iterator[None]:
    """Errors of the tool become BuildErrors of `node`, with every reason and without a traceback."""
    from . import errors
    try:
        yield
    except errors.Refused as e:
        raise BuildError(node=node, errstr="hotreload: " + "\n  ".join(map(str, e.refusals))) from e
    except OSError as e:
        raise BuildError(node=node, errstr=f"hotreload: {errors.system_error(e)}") from e
    except errors.HotreloadError as e:
        raise BuildError(node=node, errstr=f"hotreload: {e}") from e
    except ModuleNotFoundError as e:
        if (e.name or "").startswith(__package__ or ""):
            raise
        raise BuildError(node=node, errstr=f"hotreload: the Python package {e.name!r} is missing; `{sys.executable} "
                         "-m pip install scons-hotreload` installs what the tool needs") from e
