"""What the words after `octave proxy` ask for, and what it says when it does not go on."""

import os
from collections.abc import Sequence

USAGE = """Usage: octave proxy [OPTIONS] [NAME ...]

Speak MCP on standard input and output: the servers of this machine for an AI tool.
With one NAME its tools keep their own names; with several, or none (all servers),
they are called SERVER__TOOL.

Options:
  --server NAME    the same as NAME
  --profile P      the servers of a profile of octave.toml
  --manifest PATH  another octave.toml than the one in ~/.octave
  -h, --help       show this text
"""

_WRONG_USAGE = 2


class Request:
    """What the command line asked for, and who did."""

    __slots__ = ("client_pid", "manifest", "profile", "servers")

    def __init__(self, servers: Sequence[str], profile: str | None, manifest: str | None) -> None:
        self.servers = servers
        self.profile = profile
        self.manifest = manifest
        self.client_pid = os.getppid()

    def hello(self) -> bytes:
        """Return the first line of a connection for it."""
        members = [f'"clientPid":{self.client_pid}']
        if self.servers:
            members.insert(0, '"servers":[' + ",".join(map(_quote, self.servers)) + "]")
        if self.profile:
            members.insert(0, f'"profile":{_quote(self.profile)}')
        return ('{"octave":{"version":1,"proxy":{' + ",".join(members) + "}}}\n").encode()


class Ended(Exception):
    """The proxy does not go on; without a message there is nothing more to say."""

    def __init__(self, exit_code: int, message: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.hint = hint

    def tell(self) -> None:
        """Write the message, if any, to standard error."""
        if self.message:
            lines = f"error: {self.message}\n" + (f"hint: {self.hint}\n" if self.hint else "")
            os.write(2, lines.encode(errors="replace"))


def parse(argv: Sequence[str]) -> Request:
    """Return what the words after `octave proxy` ask for; `Ended` where they are wrong."""
    names: list[str] = []
    options: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            names.append(word)
            continue
        option, assigned, value = word.partition("=")
        if option not in {"--server", "--profile", "--manifest"}:
            raise Ended(_WRONG_USAGE, f"no such option: `{option}`", "octave proxy --help")
        if not assigned:
            value = next(words, "")
        if not value:
            raise Ended(_WRONG_USAGE, f"option `{option}` needs a value", "octave proxy --help")
        if option == "--server":
            names.append(value)
        else:
            options[option] = value
    return Request(names, options.get("--profile"), options.get("--manifest"))


def _quote(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    import json

    return json.dumps(text)
