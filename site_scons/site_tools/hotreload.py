"""SCons finds the tool here; the code is in the package hotreload_tool: beside this site_scons, else installed."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))     # the one beside wins, whatever else is installed
from hotreload_tool.scons_tool import exists, generate  # noqa: F401

del sys.path[0]     # submodules are found through the package
