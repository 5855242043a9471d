"""The official conformance suite against a server behind Octave, and against the server itself."""

import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from octave.serve.guard import Guard
from tests.conformance.suite import Suite, Verdict, install
from tests.e2e.conftest import Octave
from tests.e2e.test_clients import private_node
from tests.serve.running import CHECKOUT, home_workspace, running

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("conformance"),
]

SCENARIOS = {"2025-11-25": 33, "2026-07-28": 40}
"""How many the suite has for a revision."""

COMMAND = [sys.executable, "-m", "tests.conformance.reference_server"]
MANIFEST = f"""
[runtime]
port = 0

[servers.ref]
command = {json.dumps(COMMAND)}
cwd = {json.dumps(os.fspath(CHECKOUT))}
auto_start = true
"""


class WithToken:
    """Adds the token to requests without one: the suite cannot send it in every scenario."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._header = (b"authorization", b"Bearer " + token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not any(
            name == self._header[0] for name, _ in scope["headers"]
        ):
            scope = {**scope, "headers": [*scope["headers"], self._header]}
        await self._app(scope, receive, send)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    user = tmp_path_factory.mktemp("conformance")
    octave = Octave(user / ".octave", user, {"HOME": str(user)})
    return install(*private_node(octave), user / "suite", octave.environ)


@contextlib.asynccontextmanager
async def served_by_the_sdk() -> AsyncIterator[str]:
    """Serve the reference server through the SDK's own HTTP application; yields the URL."""
    # Whoever only collects the tests need not pay for the SDK.
    from tests.conformance.reference_server import build

    app = build().streamable_http_app(host="127.0.0.1")
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.lifespan.startup()
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        with anyio.CancelScope(shield=True):
            await server.shutdown()


@contextlib.asynccontextmanager
async def served_by_octave(home: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Run a runtime whose guard stands behind `WithToken`; yields the URL of the server's face."""

    def guard(app: ASGIApp, **options: Any) -> ASGIApp:
        return WithToken(Guard(app, **options), options["token"])

    # The one place where the real application is put together, and nothing of it is replaced.
    monkeypatch.setattr("octave.serve.http.Guard", guard)
    async with running(home_workspace(home, MANIFEST)) as told:
        yield f"{told.facts['url']}/mcp/servers/ref"


def assert_flawless(verdict: Verdict, revision: str) -> None:
    remarks = "\n".join(verdict.remarks)
    assert verdict.failed == (), remarks
    assert len(verdict.passed) == SCENARIOS[revision], verdict.passed


@pytest.mark.parametrize("revision", SCENARIOS)
async def test_every_scenario_passes_behind_octave(
    suite: Suite, revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served_by_octave(tmp_path / "home", monkeypatch) as url:
        verdict = await suite.run(url, revision, tmp_path / "results")
    assert_flawless(verdict, revision)
    assert verdict.remarks == ()


@pytest.mark.parametrize("revision", SCENARIOS)
@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
async def test_the_server_alone_passes_so_a_failure_is_ours(
    suite: Suite, revision: str, tmp_path: Path
) -> None:
    async with served_by_the_sdk() as url:
        verdict = await suite.run(url, revision, tmp_path / "results")
    assert_flawless(verdict, revision)
