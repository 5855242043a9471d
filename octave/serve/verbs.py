"""Verbs of the command line as a runtime runs them: the same code, in a child process of its own.

Package verbs block, take file locks and may need hundreds of megabytes: none of that belongs into
the process that passes calls on. A verb that is no longer wanted is interrupted as by Ctrl-C, and
leaves no trace of its attempt. Values of variables travel in the environment, never in argv.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import msgspec

from octave.errors import OctaveError, from_json
from octave.home import Workspace
from octave.runtime.command import Command
from octave.runtime.masking import Mask
from octave.runtime.process import Callbacks, Process

NICENESS = 10
"""Calls of running servers come first: an installation keeps all cores busy."""

OUTPUT_BYTES = 64 * 2**20
"""More than the longest `--json` document of any verb."""

Told = Callable[[str, str, Mapping[str, Any]], None]
"""Takes the kind of a line on stderr, `progress` or `note`, its text, and of a step that can be
counted how much is done: `done` and `total`, with their `unit`."""
COUNTS = ("done", "total", "unit")


@dataclass(frozen=True, slots=True)
class Said:
    """How a verb ended."""

    document: Any
    """What it wrote with `--json`; None: nothing that can be read."""
    errors: tuple[OctaveError, ...]


@dataclass(frozen=True, slots=True)
class Private:
    """What a verb is given beside its words, which others can read in the list of processes."""

    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of its environment, beside those of the runtime."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What is hidden in all that it says."""


NOTHING = Private()


class Verbs:
    """Runs verbs for the workspace whose runtime this is."""

    def __init__(self, workspace: Workspace, environ: Mapping[str, str]) -> None:
        self.workspace = workspace
        self._environ = environ

    async def run(
        self,
        verb: str,
        words: Sequence[str],
        *,
        told: Told = lambda _kind, _text, _count: None,
        private: Private = NOTHING,
        in_folder: bool = False,
        can_wait: bool = False,
    ) -> Said:
        """Run `octave VERB --json WORDS` to its end; cancelling interrupts it and waits for that.

        With `in_folder` it runs in the manifest's folder, else in none that could mean anything to
        it. One that `can_wait` leaves the processor to everything else.

        Raises:
            StartFailed: no process can be had.
        """
        folder = self.workspace.manifest.parent if in_folder else Path("/")
        # -P: else a module in the folder would be taken for one of Octave's.
        program = (sys.executable, "-P", "-m", "octave")
        options = ("--json", "-v", "--manifest", os.fspath(self.workspace.manifest))
        command = Command(
            f"octave {verb}",
            (*program, verb, *options, *words),
            folder,
            {**self._environ, **private.variables},
        )
        mask = Mask(private.secrets)
        listener = _Listener(told, mask)
        process = Process(command, listener.callbacks(), mask)
        async with process.running():
            if can_wait:
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
            try:
                await listener.ended.wait()
            except BaseException:
                # It reads nothing, so the end of its input would tell it nothing.
                process.is_given_up = True
                raise
        return listener.said(command.name, str(process.exit_status), process.stderr_tail)


class _Listener:
    """What a verb writes, until it ends."""

    def __init__(self, told: Told, mask: Mask) -> None:
        self.ended = anyio.Event()
        self._told = told
        self._mask = mask
        self._stdout = bytearray()
        self._line = bytearray()
        self._errors: list[OctaveError] = []

    def callbacks(self) -> Callbacks:
        """Return what hears the process."""
        return Callbacks(self._hear_stdout, self._hear_stderr, self.ended.set)

    def said(self, name: str, exit_status: str, tail: Sequence[str]) -> Said:
        """Return how it ended; a verb that neither wrote a document nor told why has failed."""
        try:
            document = _masked(msgspec.json.decode(self._stdout), self._mask)
        except (ValueError, RecursionError):
            document = None
        if document is None and not self._errors:
            self._errors.append(
                OctaveError(f"`{name}`: {exit_status}", details={"stderrTail": list(tail)})
            )
        return Said(document, tuple(self._errors))

    def _hear_stdout(self, data: bytes) -> None:
        if len(self._stdout) <= OUTPUT_BYTES:
            self._stdout += data

    def _hear_stderr(self, data: bytes) -> None:
        self._line += data
        *lines, rest = self._line.split(b"\n")
        self._line = rest
        for line in lines:
            self._take(bytes(line))

    def _take(self, line: bytes) -> None:
        try:
            said = msgspec.json.decode(line, type=dict[str, Any])
        except (ValueError, RecursionError):
            said = {"note": line.decode(errors="replace")}
        if isinstance(said.get("error"), dict):
            self._errors.append(from_json(said["error"]))
        for kind in ("progress", "note"):
            if isinstance(said.get(kind), str):
                count = {name: said[name] for name in COUNTS if name in said}
                self._told(kind, said[kind], count)


def _masked(found: Any, mask: Mask) -> Any:
    """Return what JSON said, without the secrets in its texts; names of members are Octave's."""
    if isinstance(found, str):
        return mask.text(found)
    if isinstance(found, list):
        return [_masked(each, mask) for each in found]
    if isinstance(found, dict):
        return {name: _masked(each, mask) for name, each in found.items()}
    return found
