"""A whole runtime in the test's own process, with little real servers behind it."""

import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from octave.home import Home, Workspace
from octave.remote import Remote
from octave.runtime.events import Event
from octave.serve.app import Options, Report, serve

CHECKOUT = Path(__file__).parent.parent.parent
SERVERS = CHECKOUT / "tests" / "servers"
BOUND_S = 10.0

Answer = TypeVar("Answer")


def manifest_text(*servers: str, runtime: str = "port = 0", table: str = "") -> str:
    """Return an octave.toml with those of tests/servers, each under its own name."""
    lines = [f"[runtime]\n{runtime}\n"]
    for name in servers:
        command = json.dumps([sys.executable, str(SERVERS / f"{name}.py")])
        lines.append(f"[servers.{name.replace('_', '-')}]\ncommand = {command}\n{table}\n")
    return "\n".join(lines)


def home_workspace(root: Path, text: str) -> Workspace:
    """Return the workspace of a home in `root` with that manifest."""
    workspace = Workspace.of_home(Home(root))
    workspace.prepare()
    workspace.manifest.write_text(text, encoding="utf-8")
    return workspace


@dataclass(slots=True)
class Told:
    """What a runtime reported."""

    events: list[Event] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
    ready: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)
    more: anyio.Event = field(default_factory=anyio.Event)

    def report(self) -> Report:
        return Report(self._hear, self._be_ready, self._be_warned)

    async def until(self, is_so: Callable[[], object]) -> None:
        """Wait for the report after which `is_so`."""
        with anyio.fail_after(BOUND_S):
            while not is_so():
                await self.more.wait()

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self._tell()

    def _be_warned(self, sentence: str) -> None:
        self.warnings.append(sentence)
        self._tell()

    def _be_ready(self, facts: Mapping[str, object]) -> None:
        self.facts = facts
        self.ready.set()

    def _tell(self) -> None:
        told, self.more = self.more, anyio.Event()
        told.set()


@contextlib.asynccontextmanager
async def running(
    workspace: Workspace,
    options: Options = Options(),  # noqa: B008 - frozen
    environ: Mapping[str, str] = os.environ,
) -> AsyncIterator[Told]:
    """Serve the workspace; ends with `octave/shutdown` unless it has ended by itself."""
    told = Told()

    async def run() -> None:
        try:
            await serve(workspace, environ, options, told.report())
        finally:
            told.ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        with anyio.fail_after(BOUND_S):
            await told.ready.wait()
        try:
            yield told
        finally:
            if not told.ended.is_set():
                await ask(workspace, lambda remote: remote.request("octave/shutdown"))
                with anyio.fail_after(BOUND_S):
                    await told.ended.wait()


async def ask(workspace: Workspace, question: Callable[[Remote], Answer]) -> Answer:
    """Run `question` with a connected remote, in a thread of its own."""

    def asked() -> Answer:
        with Remote.connect(workspace) as remote:
            return question(remote)

    with anyio.fail_after(BOUND_S):
        return await anyio.to_thread.run_sync(asked)


async def request(workspace: Workspace, method: str, **params: Any) -> Any:
    """Return the parsed result of one control request."""
    return await ask(workspace, lambda remote: remote.request(method, params, timeout_s=BOUND_S))
