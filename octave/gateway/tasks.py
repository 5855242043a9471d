"""Tasks at an aggregated face: whose is which.

A call may be answered by a task, which is then asked for by its id alone: at the server that made
it. (MCP 2025-11-25, tasks; 2026-07-28, extension `io.modelcontextprotocol/tasks`)
"""

from octave.errors import Ambiguous, NotFound
from octave.gateway.listing import SCANNED_BYTES, text_of
from octave.runtime import wire

LIMIT = 1000
"""Of tasks that are remembered for one client; the oldest go."""


class Tasks:
    """The tasks of one client."""

    def __init__(self) -> None:
        self._servers: dict[str, tuple[str, ...]] = {}

    def saw(self, server: str, answer: bytes) -> None:
        """Remember the task that the server made, if its answer to a call, a line, is one."""
        if answer.find(b'"taskId"', 0, SCANNED_BYTES) < 0:
            return
        result = wire.member(answer, "result")
        task = text_of(result, "task", "taskId") or text_of(result, "taskId")
        if task is None:
            return
        owners = self._servers.pop(task, ())
        self._servers[task] = owners if server in owners else (*owners, server)
        if len(self._servers) > LIMIT:
            del self._servers[next(iter(self._servers))]

    def is_of(self, server: str, task: str | None) -> bool:
        """Whether the server made that task for this client."""
        return task is not None and server in self._servers.get(task, ())

    def server_of(self, task: str) -> str:
        """Return the server that made the task.

        Raises:
            NotFound: none did, for this client.
            Ambiguous: several gave the same id.
        """
        owners = self._servers.get(task, ())
        if len(owners) == 1:
            return owners[0]
        if not owners:
            raise NotFound(f"unknown task `{task}`")
        names = " and ".join(f"`{owner}`" for owner in owners)
        raise Ambiguous(
            f"task `{task}` may be of {names}",
            hint="use the endpoint of one of them",
            details={"servers": list(owners)},
        )
