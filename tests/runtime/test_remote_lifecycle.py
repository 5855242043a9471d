"""A remote server under the supervisor: it dies, comes back, and wants a login."""

import json
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
import pytest

from octave.errors import AuthorizationNeeded, RemoteUnreachable, StartFailed
from octave.packages.launch import Endpoint, LaunchSpec, Policy, TokenStore
from octave.runtime.remote_login import Wish, login
from tests.remote_peer import authority, server
from tests.remote_peer.authority import Authority
from tests.remote_peer.browsing import browser
from tests.remote_peer.listening import Canned, Listening
from tests.remote_peer.server import Peer
from tests.remote_peer.talking import Memory
from tests.runtime.fleet import call, running

pytestmark = pytest.mark.anyio


@pytest.fixture
def remote() -> Iterator[Listening]:
    with server.listening(Peer()) as listening:
        yield listening


def spec_of(remote: Listening, tokens: TokenStore | None = None) -> LaunchSpec:
    endpoint = Endpoint(f"{remote.origin}/mcp", dict, tokens)
    return LaunchSpec("peer", (), Path("/"), dict, endpoint=endpoint, policy=Policy())


async def test_it_is_ready_without_a_process(tmp_path: Path, remote: Listening) -> None:
    async with running(tmp_path, spec_of(remote)) as run:
        assert await call(run["peer"], "echo", text="hi") == "hi"
        (status,) = await run.supervisor.snapshot()
        assert (status["state"], status["pid"], status["instances"]) == ("ready", None, 1)
        (stopped,) = await run.supervisor.stop(["peer"])
        assert stopped == {"name": "peer", "status": "stopped", "pid": None}
        (status,) = await run.supervisor.snapshot()
        assert (status["instances"], status["lastError"]) == (0, None)
    assert remote.count("/mcp", "DELETE") == 1


async def test_a_server_that_was_restarted_is_met_anew_and_the_call_goes_through(
    tmp_path: Path, remote: Listening
) -> None:
    async with running(tmp_path, spec_of(remote)) as run:
        assert await call(run["peer"], "echo", text="before") == "before"
        await anyio.to_thread.run_sync(remote.stop)
        remote.start()
        # Its session is gone, so the call was not made: it is, with the next one.
        assert await call(run["peer"], "echo", text="after") == "after"
        assert (await run.supervisor.snapshot())[0]["restarts"] == 1


async def test_a_server_that_is_down_is_said_to_be_and_found_again(
    tmp_path: Path, remote: Listening
) -> None:
    await anyio.to_thread.run_sync(remote.stop)
    async with running(tmp_path, spec_of(remote)) as run:
        with pytest.raises(RemoteUnreachable) as caught:
            await call(run["peer"], "echo", text="x")
        assert caught.value.exit_code == 8
        assert caught.value.details["permanent"] is False
        remote.start()
        (started,) = await run.supervisor.restart(["peer"])
        assert started["status"] == "ready"
        assert await call(run["peer"], "echo", text="again") == "again"


async def test_what_wants_a_login_fails_until_there_is_one(tmp_path: Path) -> None:
    given, tokens = Authority(), Memory()
    with (
        authority.listening(given) as issuer,
        server.listening(Peer(), authority=given, issuer=issuer.origin) as remote,
    ):
        spec = spec_of(remote, tokens)
        async with running(tmp_path, spec) as run:
            with pytest.raises(AuthorizationNeeded) as caught:
                await call(run["peer"], "echo", text="x")
            assert caught.value.hint == "octave auth peer"
            assert run["peer"].state == "failed"
            assert await anyio.to_thread.run_sync(login, spec, Wish(browser([])))
            await run.supervisor.restart(["peer"])
            assert await call(run["peer"], "echo", text="in") == "in"
            given.revoke_all()
            with pytest.raises(AuthorizationNeeded):
                await call(run["peer"], "echo", text="out")
            assert run["peer"].state == "failed"


async def test_what_a_server_says_of_the_login_is_told_and_logged_without_it(
    tmp_path: Path,
) -> None:
    given, tokens = Authority(), Memory()
    with (
        authority.listening(given) as issuer,
        server.listening(Peer(), authority=given, issuer=issuer.origin) as remote,
    ):
        spec = spec_of(remote, tokens)
        assert await anyio.to_thread.run_sync(login, spec, Wish(browser([])))
        token = json.loads(tokens.text or "")["tokens"]["access_token"]
        error = json.dumps({"code": -1, "message": f"no {token}"})
        body = b'{"jsonrpc":"2.0","id":1,"error":%b}' % error.encode()
        remote.intercept = lambda _: Canned(200, body, {"content-type": "application/json"})
        async with running(tmp_path, spec) as run:
            with pytest.raises(StartFailed) as caught:
                await call(run["peer"], "echo", text="x")
            assert caught.value.message == "`peer` refused `initialize`: no ***"
            assert token not in str(run.events)
        assert token not in (tmp_path / "peer.log").read_text()
