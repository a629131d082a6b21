"""`python -m hotreload_tool`."""
import sys

from .start import main

sys.exit(main())
