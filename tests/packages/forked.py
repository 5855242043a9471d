"""`octave` in a fork of the test's own process: everything is loaded, so it starts at once.

Without rights, root is refused what anybody else would be.
"""

import contextlib
import ctypes
import importlib
import json
import os
import pkgutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from octave import cli
from octave.cli.main import run
from tests.packages.story import WAIT_S, World

for _module in pkgutil.iter_modules(cli.__path__):
    importlib.import_module(f"octave.cli.{_module.name}")
importlib.import_module("octave.packages.ecosystems.pypi")
importlib.import_module("octave.runtime.probe")

_DROP_FROM_BOUNDING_SET = 24
"""PR_CAPBSET_DROP (prctl(2)): what a root child would get back when it starts another program."""
_CAPABILITIES = 64
_CAPABILITY_VERSION = 0x20080522
_POLL_S = 0.005


@dataclass(frozen=True)
class Told:
    """How a command ended, and what it said."""

    code: int
    """Negative for a signal."""
    stdout: str
    stderr: str

    @property
    def error(self) -> Any:
        """The error on the last line of stderr, of a command with `--json`."""
        return json.loads(self.stderr.splitlines()[-1])["error"]


class Verb:
    """A command that runs, in a session of its own as in a terminal of its own."""

    def __init__(
        self, environ: Mapping[str, str], words: tuple[str, ...], cwd: Path, **terms: Any
    ) -> None:
        self._out, self._err, given = (tempfile.TemporaryFile() for _ in range(3))  # noqa: SIM115
        given.write(terms.get("stdin", b""))
        given.seek(0)
        self.pid = os.fork()
        if self.pid == 0:
            _become(environ, cwd, (given, self._out, self._err), **terms)
            _run(words)
        given.close()

    def signal(self, number: int) -> None:
        """Send a signal to the whole group, as a terminal does."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def end(self, within_s: float = WAIT_S) -> Told:
        """Wait for it, and kill what hangs."""
        deadline = time.monotonic() + within_s
        while not (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
            time.sleep(_POLL_S)
        return Told(os.waitstatus_to_exitcode(ended[1]), _said(self._out), _said(self._err))


def octave(world: World | Mapping[str, str], *words: str, **terms: Any) -> Told:
    """Run a verb to its end: `environ` besides the world's, `cwd`, `stdin`, `has_rights`."""
    return begin(world, *words, **terms).end()


def begin(world: World | Mapping[str, str], *words: str, **terms: Any) -> Verb:
    """Begin a verb."""
    environ = dict(world.environ if isinstance(world, World) else world)
    cwd = terms.pop("cwd", world.cwd if isinstance(world, World) else None)
    if words[:1] == ("install",) and "-y" not in words:
        # As `World.start`: whoever writes a test knows what it installs.
        words = (words[0], "-y", *words[1:])
    return Verb(environ | terms.pop("environ", {}), words, cwd, **terms)


def _said(file: IO[bytes]) -> str:
    with file:
        file.seek(0)
        return file.read().decode()


def _become(
    environ: Mapping[str, str],
    cwd: Path,
    files: tuple[IO[bytes], ...],
    *,
    has_rights: bool = True,
    stdin: bytes = b"",
) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    for number, file in enumerate(files):
        os.dup2(file.fileno(), number)
    sys.stdin, sys.stdout = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8")  # noqa: SIM115
    tempfile.tempdir = None
    if not has_rights and os.getuid() == 0:
        _drop_rights()


def _drop_rights() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(_CAPABILITIES):
        libc.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    assert libc.capset(header, nothing) == 0


def _run(words: tuple[str, ...]) -> None:
    code = 99
    try:
        code = run(words)
        sys.stdout.flush()
    finally:
        os._exit(code)
