# mypy: ignore-errors
"""Writes invalid UTF-8, NULs, CR-only progress bars, lone surrogate bytes and ANSI to stderr.

A good runtime keeps bytes in the file, escapes on display, never raises UnicodeDecodeError, keeps
serving.
"""

from _base import Server, err


class S(Server):
    name = "binary_stderr"

    def on_start(self):
        err(b"\xff\xfe\x00binary\x80\x81\n\xed\xa0\x80 surrogate\n\xc3")  # cut in mid character
        err(b"\xa9 copyright split over two writes\n")
        err(b"\x1b]0;pwned title\x07\x1b[2J\x1b[1;31mred\x1b[0m\n")
        err(b"10%\r20%\r30%\r" + b"\x00" * 4096 + b"\n")

    def call(self, name, args, msg):
        err(bytes(range(256)) + b"\n")
        return super().call(name, args, msg)


S().run()
