# mypy: ignore-errors
"""Exits with code 1 at its start, with escape sequences in its last words.

A good runtime shows the words and lets no terminal act upon the sequences.
"""

import os

from _base import err

err("\x1b[2J\x1b]0;pwned title\x07\x1b[31mfatal\x1b[0m: no key\r\n")
os._exit(1)
