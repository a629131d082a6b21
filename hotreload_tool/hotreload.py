"""SCons finds the tool here with `toolpath=[PyPackageDir('hotreload_tool')]`."""
from hotreload_tool.scons_tool import exists, generate  # noqa: F401
