"""Reach a runtime for one command: the running one, else a private one in this process.

A private runtime takes no lock, socket, port or token, writes the same logs, and is gone with the
command. Everything that touches a server thus goes one way.
"""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from octave.cli.output import safe, tell
from octave.errors import CallTimedOut, OctaveError, RuntimeNotRunning
from octave.home import Workspace
from octave.remote import UNKNOWN, Remote

OnNotification = Callable[[str, Any], None]


class Runtime(Protocol):
    """What a command needs of a runtime; `Remote` is the other implementer."""

    def request_raw(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        on_notification: OnNotification | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Return the raw result of one of the control operations.

        Raises:
            OctaveError: the operation failed.
            CallTimedOut: it was not done within `timeout_s`; None: no limit of our own.
        """


@contextlib.contextmanager
def reach(workspace: Workspace) -> Iterator[Runtime]:
    """Yield the running runtime of `workspace`, or a private one."""
    try:
        remote = Remote.connect(workspace)
    except RuntimeNotRunning:
        with _private(workspace) as private:
            yield private
        return
    with remote:
        yield remote


def reload(workspace: Workspace) -> None:
    """Let a running runtime read the manifest anew; without one nothing needs to be done."""
    try:
        with Remote.connect(workspace) as remote:
            remote.request("octave/reload", {})
    except RuntimeNotRunning:
        return
    except OctaveError as error:
        # What is on disk is done and right; only the runtime does not know it yet.
        tell(f"warning: the running runtime did not take it over: {safe(error.message)}")


def swap(workspace: Workspace, name: str) -> None:
    """As `reload`, for a server that has another version: the new one is up before the old goes.

    Calls in flight end with the process they began with, later ones meet the new one.

    Raises:
        OctaveError: the runtime did not take it over, or the server does not come up in it.
    """
    try:
        with Remote.connect(workspace) as remote:
            remote.request("octave/swap", {"name": name})
    except RuntimeNotRunning:
        return
    except OctaveError as error:
        if error.details != UNKNOWN:
            raise
        # It drains the old process before it starts the new one: no call fails.
        reload(workspace)


@contextlib.contextmanager
def _private(workspace: Workspace) -> Iterator[Runtime]:
    # Imported late: only a call without a runtime pays for an event loop and a supervisor.
    from anyio.from_thread import start_blocking_portal

    from octave.serve.methods import METHODS
    from octave.serve.private import private

    class InProcess:
        def request_raw(
            self,
            method: str,
            params: Mapping[str, Any] | None = None,
            on_notification: OnNotification | None = None,
            timeout_s: float | None = None,
        ) -> bytes:
            def on_progress(told: bytes) -> None:
                if on_notification is not None:
                    on_notification("octave/progress", {"params": json.loads(told)})

            raw = json.dumps(params or {}).encode()
            answer = portal.start_task_soon(METHODS[method], control, raw, on_progress)
            try:
                return answer.result(timeout_s)
            except TimeoutError as error:
                raise CallTimedOut("the server did not answer in time") from error
            finally:
                # Else the end of the runtime waits for a call that nobody wants any more.
                answer.cancel()

    # What a runtime notes for its operator is not what the caller of one tool asked for.
    logging.getLogger("octave").setLevel(logging.ERROR)
    with start_blocking_portal() as portal:
        runtime = portal.wrap_async_context_manager(private(workspace, os.environ))
        control = runtime.__enter__()
        try:
            yield InProcess()
        finally:
            # What the caller raises is its own affair: inside, a task group would wrap it.
            runtime.__exit__(None, None, None)
