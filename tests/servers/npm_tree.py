# mypy: ignore-errors
"""A chain of shells around a good server, as npm makes one; argv[1] is the script to wrap.

The shells wait for their child and neither pass signals on nor close what they inherited.
"""

import os
import sys

GOOD = os.path.join(os.path.dirname(__file__), "good.py")  # noqa: PTH118, PTH120
WRAP = 'sh -c "$0 $1; exit \\$?"; exit $?'

os.execvp("sh", ["sh", "-c", WRAP, sys.executable, sys.argv[1] if sys.argv[1:] else GOOD])
