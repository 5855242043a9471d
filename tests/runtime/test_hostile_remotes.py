"""What must end does end, and what a stranger writes is neither trusted nor fatal."""

import json
import sys
from pathlib import Path

import anyio
import pytest

from octave.errors import OctaveError
from octave.packages.launch import Endpoint, LaunchSpec
from octave.runtime import wire
from octave.runtime.remote_login import Wish, login
from tests.remote_peer import server
from tests.remote_peer.listening import Canned, Listening, Seen
from tests.remote_peer.server import Peer
from tests.remote_peer.talking import Memory
from tests.runtime.fleet import call, launch, running

pytestmark = pytest.mark.anyio

BOUND_S = 10.0

ODD_ACKNOWLEDGEMENT = """
import json, sys
def send(**message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\\n")
    sys.stdout.flush()
for line in sys.stdin:
    message = json.loads(line)
    method, number = message.get("method"), message.get("id")
    if method == "initialize":
        send(id=number, error={"code": -32022, "message": "no", "data":
             {"supported": ["2026-07-28"]}})
    elif method == "server/discover":
        send(id=number, result={"supportedVersions": ["2026-07-28"], "resultType": "complete",
             "capabilities": {"tools": {"listChanged": True}}, "ttlMs": 0, "cacheScope": "private"})
    elif method == "tools/call":
        acknowledged = {"resourceSubscriptions": [{}, [], 1, None]}
        lines = [{"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
                  "params": {"notifications": acknowledged}},
                 {"jsonrpc": "2.0", "id": number, "result": {"content":
                  [{"type": "text", "text": "hi"}], "resultType": "complete"}}]
        sys.stdout.write("".join(json.dumps(line) + "\\n" for line in lines))
        sys.stdout.flush()
"""


async def test_what_is_added_while_the_runtime_ends_does_not_keep_it(tmp_path: Path) -> None:
    slow = launch(tmp_path, "ignore_sigterm")
    with anyio.fail_after(2 * BOUND_S):
        async with running(tmp_path, slow) as run:
            await call(run["ignore-sigterm"], "echo", text="hi")
            run.supervisor.close()
            await anyio.wait_all_tasks_blocked()
            # As `octave install` asks for it.
            await run.supervisor.reload([slow, launch(tmp_path, "good")])


async def test_an_odd_acknowledgement_costs_no_answer(tmp_path: Path) -> None:
    script = tmp_path / "odd.py"
    script.write_text(ODD_ACKNOWLEDGEMENT, encoding="utf-8")
    launched = LaunchSpec("odd", (sys.executable, str(script)), tmp_path, dict, version="1")
    async with running(tmp_path, launched) as run:
        with anyio.fail_after(BOUND_S):
            assert await call(run["odd"], "x") == "hi"


@pytest.mark.parametrize(
    "address",
    [
        *("https://127.1/", "https://2130706433/", "https://0x7f.0.0.1/", "https://0/"),
        *("https://localhost./", "https://a.localhost/", "https://127.0.0.1./"),
        *("https://[::ffff:127.0.0.1]/", "https://169.254.169.254/", "https://10.1/"),
    ],
)
def test_a_login_is_not_sent_to_this_machine_however_it_is_written(address: str) -> None:
    from mcp.client.auth import OAuthFlowError

    from octave.runtime.remote_oauth import refuse_address

    with pytest.raises(OAuthFlowError):
        refuse_address("https://mcp.example.com/mcp", address)


def test_texts_with_lone_surrogates_are_written_as_escapes() -> None:
    line = wire.error(b"1", 1, "\ud800")
    assert json.loads(line)["error"]["message"] == "\ud800"


# Remote servers that say what is none.


def odd_remote(answer: Canned) -> Listening:
    """A server that answers whatever it is asked like that."""
    listening = server.listening(Peer())
    listening.intercept = lambda seen: answer
    return listening


def endpoint(listening: Listening, tokens: Memory | None = None) -> LaunchSpec:
    found = Endpoint(f"{listening.origin}/mcp", dict, tokens)
    return LaunchSpec("peer", (), Path("/"), dict, endpoint=found)


METADATA = (
    "https://①②⑦.0.0.1/x",
    "https://[/",
    "http://a b/",
    "https://exa\tmple.com/",
    "javascript:alert(1)",
    "file:///etc/passwd",
    "//",
    "https://" + "a" * 70 + ".example/",
    "https://example.com:99999/",
    "https://xn--/",
)


@pytest.mark.parametrize("address", METADATA)
def test_a_login_that_a_server_sends_nowhere_is_told_so(address: str) -> None:
    value = f'Bearer resource_metadata="{address}"'.encode().decode("latin-1")
    with (
        odd_remote(Canned(401, b"", {"WWW-Authenticate": value})) as remote,
        pytest.raises(OctaveError) as raised,
    ):
        login(endpoint(remote, Memory()), Wish(lambda _: None))
    assert "bug" not in str(raised.value)


@pytest.mark.parametrize("location", ["https://①②⑦.0.0.1/x", "file:///etc/passwd"])
async def test_a_redirect_to_nowhere_is_an_error_of_that_server(
    tmp_path: Path, location: str
) -> None:
    value = location.encode().decode("latin-1")
    with odd_remote(Canned(307, b"", {"Location": value})) as remote:
        async with running(tmp_path, endpoint(remote)) as run:
            with pytest.raises(OctaveError) as raised:
                await call(run["peer"], "x")
            assert "bug" not in str(raised.value), raised.value


@pytest.mark.parametrize("version", ['"é"', '"a\\r\\nX: y"', "1" * 5000, '"\\ud800"', "null", "{}"])
async def test_an_odd_version_is_an_error_of_that_server(tmp_path: Path, version: str) -> None:
    def answer(seen: Seen) -> Canned:
        identifier = json.loads(seen.body or b"{}").get("id") if seen.method == "POST" else None
        if identifier is None:
            return Canned(202)
        text = '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":%s,"capabilities":{}}}'
        body = (text % (json.dumps(identifier), version)).encode()
        return Canned(200, body, {"Content-Type": "application/json"})

    with odd_remote(Canned(200)) as remote:
        remote.intercept = answer
        async with running(tmp_path, endpoint(remote)) as run:
            try:
                await call(run["peer"], "x")
            except OctaveError as error:
                assert "bug" not in str(error)
            except (KeyError, TypeError):
                pass  # It opened, and answered a call by that.
