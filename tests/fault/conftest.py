"""Lets the tests of this folder import its programs, which are run as scripts, too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
