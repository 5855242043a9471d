"""The mark a runtime leaves on all it starts, so that nothing of it outlives the runtime.

Everything inherits the mark, an environment variable, daemons included. A guardian ends what
carries it when the runtime is killed; one that dies has a successor at once. Should both be killed
together, a record in the workspace leads the next runtime to what is left.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import select
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import psutil

from octave.background import PROCESS_MARK, RUN_MARK
from octave.home import atomic_write
from octave.packages.launch import LaunchSpec
from octave.runtime import guardian, worker

FORMAT = 1
SUFFIX = ".run"
GUARDIAN_END_S = guardian.BOUND_S + 2.0
"""It gives up by itself before that."""
SUCCESSOR_DELAY_S = 0.5
"""Between two guardians: where something ends them all, it is not to keep the runtime busy."""
NEXT_ATTEMPT_S = 5.0
"""When none could be started: the machine is short of something."""
_log = logging.getLogger(__name__)


def new_id() -> str:
    """Return an id that no other run or process has, ever."""
    return secrets.token_hex(16)


class Run:
    """One life of a runtime, known by its `id`.

    Args:
        folder: where records lie, those of earlier runtimes of the workspace too.
        environ: what the guardian is started with.
        must_record: where no record can be written, there is no run.
    """

    def __init__(
        self, folder: Path, environ: Mapping[str, str], *, must_record: bool = True
    ) -> None:
        self.id = new_id()
        self._folder = folder
        self._must_record = must_record
        self._record = folder / f"{self.id}{SUFFIX}"
        self._environ = {
            name: value for name, value in environ.items() if name not in (RUN_MARK, PROCESS_MARK)
        }
        self._guardian: subprocess.Popen[bytes] | None = None  # noqa: TID251 - a type
        self._is_over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._successor: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Sweep first; at the end, when all servers have ended, end what they left behind.

        Servers may be started within it.

        Raises:
            OSError: the record, which must be, cannot be written.
        """
        await worker.run(self._begin)
        self._loop = asyncio.get_running_loop()
        try:
            yield
        finally:
            self._unwatch()
            self._loop = None
            with anyio.CancelScope(shield=True):
                await worker.run(self._end)

    def marked(self, specs: Iterable[LaunchSpec]) -> list[LaunchSpec]:
        """Return the specs with the mark in their environment.

        The first start of one of them starts the guardian; later ones see to it that it lives.
        """

        def environment(spec: LaunchSpec) -> dict[str, str]:
            return spec.environment() | {RUN_MARK: self.id}

        return [
            replace(spec, environment=partial(environment, spec), before_start=self._guard)
            for spec in specs
        ]

    def mend(self) -> None:
        """Write the record again where somebody removed it.

        Raises:
            OSError: it cannot be written.
        """
        if not self._record.exists():
            self._write_record()

    @property
    def guardian_pid(self) -> int | None:
        """The guardian's process; None before the first server is started."""
        return None if self._guardian is None else self._guardian.pid

    def _begin(self) -> None:
        try:
            sweep(self._folder)
            self._write_record()
        except OSError:
            if self._must_record:
                raise

    def _write_record(self) -> None:
        record = {"format": FORMAT, "bootId": _boot_id(), **_identity(os.getpid())}
        atomic_write(self._record, json.dumps(record).encode() + b"\n")

    def _end(self) -> None:
        if self._guardian is not None and not _ends(self._guardian):
            return  # the record stays, for the next runtime to try again
        if self._record.exists():
            self._record.unlink(missing_ok=True)

    def _guard(self) -> None:
        if self._guardian is not None:
            if not self._is_over and self._guardian.poll() is None:
                return
            self._unwatch()
            _ends(self._guardian)
        try:
            # No other process can hold the pipe: its end is closed on exec.
            self._guardian = subprocess.Popen(  # noqa: TID251 - it outlives us, no server does
                (sys.executable, "-I", "-S", guardian.__file__, RUN_MARK, self.id),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,  # says nothing; its end is the guardian's
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env=self._environ,
            )
        except OSError as error:
            # Servers are worth more than the guard over them; the record is there yet.
            if self._guardian is not None or self._successor is None:
                _log.warning("no guardian: %s", error)
            self._guardian = None
            self._replace_after(NEXT_ATTEMPT_S)
        else:
            self._is_over = False
            self._watch(self._guardian)

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:  # noqa: TID251 - a type
        assert process.stdout is not None
        if self._loop is not None:
            self._loop.add_reader(process.stdout, self._guardian_died)

    def _guardian_died(self) -> None:
        # Its pipe ends a moment before it can be waited for.
        self._is_over = True
        self._unwatch()
        self._replace_after(SUCCESSOR_DELAY_S)

    def _replace_after(self, delay_s: float) -> None:
        if self._successor is not None:
            self._successor.cancel()
        if self._loop is not None:
            self._successor = self._loop.call_later(delay_s, self._guard)

    def _unwatch(self) -> None:
        if self._successor is not None:
            self._successor.cancel()
        if self._loop is not None and self._guardian is not None:
            assert self._guardian.stdout is not None
            self._loop.remove_reader(self._guardian.stdout)


def _ends(process: "subprocess.Popen[bytes]") -> bool:  # noqa: TID251 - a type
    """Let the guardian go; whether it did."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    # Not by `wait` alone: with a time-out that sleeps, up to 50 ms at a time.
    with process.stdout as stdout:
        end = select.poll()
        end.register(stdout, select.POLLHUP)
        if not end.poll(GUARDIAN_END_S * 1000):
            return False
    process.wait()
    return True


def sweep(folder: Path) -> None:
    """End what dead runtimes with a record in `folder` left behind; blocks as `end_marked`.

    Nothing is believed of a record but the mark: only what carries it is signalled.
    """
    dead = {
        record.stem: record for record in folder.glob(f"*{SUFFIX}") if not _is_of_living(record)
    }
    if not dead or guardian.end_marked([f"{RUN_MARK}={run_id}".encode() for run_id in dead]):
        for record in dead.values():
            record.unlink(missing_ok=True)


def _is_of_living(record: Path) -> bool:
    try:
        found = json.loads(record.read_bytes())
        pid = found["pid"]
        if found["format"] > FORMAT:
            return True  # not ours to judge
        if found["bootId"] != _boot_id() or not isinstance(pid, int) or pid <= 1:
            return False
        return _identity(pid) == {"pid": pid, "startedAt": found["startedAt"]}
    except (OSError, ValueError, LookupError, TypeError, psutil.Error):
        return False


def _identity(pid: int) -> dict[str, object]:
    """Return what no other process of this boot has; field 22 of proc_pid_stat(5) where there is.

    psutil's time of creation moves with the wall clock.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {"pid": pid, "startedAt": psutil.Process(pid).create_time()}
    return {"pid": pid, "startedAt": int(stat.rpartition(")")[2].split()[19])}


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(psutil.boot_time())
