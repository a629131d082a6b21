"""SCons finds the tool here; the code is in the package hotreload_tool, installed or beside this site_scons."""
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
from hotreload_tool.scons_tool import exists, generate  # noqa: F401
