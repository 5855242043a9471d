"""The parts of a runtime that answer calls, whoever asks: connected, and run together."""

from collections.abc import Iterable
from dataclasses import dataclass

import anyio
import anyio.abc

from octave.gateway.catalogue import Catalogue
from octave.gateway.router import Router
from octave.home import Workspace
from octave.packages.launch import LaunchSpec
from octave.runtime import allocator
from octave.runtime.logs import ServerLog
from octave.runtime.marker import Run
from octave.runtime.supervisor import Supervisor
from octave.serve import claim
from octave.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """What answers calls."""

    supervisor: Supervisor
    catalogue: Catalogue
    router: Router


def assemble(workspace: Workspace, specs: Iterable[LaunchSpec], settings: Settings) -> Parts:
    """Return the connected parts; their `run` is the caller's."""
    supervisor = Supervisor(
        specs,
        lambda name: ServerLog(
            workspace.log(name), rotate_bytes=settings.log_rotate_bytes, keep=settings.log_keep
        ),
        stopped=claim.read_choices(workspace),
        on_choice=lambda stopped: claim.write_choices(workspace, stopped),
    )
    catalogue = Catalogue(supervisor, workspace.catalogue, tool_cache_s=settings.tool_cache_s)
    router = Router(supervisor, catalogue)
    supervisor.on_notification = router.heard
    return Parts(supervisor, catalogue, router)


async def supervise(
    parts: Parts,
    run: Run,
    ended: anyio.Event,
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Run the servers under the mark of `run`, until the supervisor is closed; then set `ended`."""
    try:
        allocator.prepare()
        async with run.alive():
            await parts.supervisor.run(task_status=task_status)
    finally:
        ended.set()
