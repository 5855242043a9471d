"""`octave auth`, and what works behind a login, against real servers on loopback."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from octave.runtime import handshake, wire
from tests.cli.desk import Desk
from tests.remote_peer import authority, server
from tests.remote_peer.authority import Authority
from tests.remote_peer.listening import Listening
from tests.remote_peer.server import Peer

BROWSER = {"BROWSER": f"{shlex.quote(sys.executable)} -m tests.remote_peer.browsing %s"}


@pytest.fixture
def given() -> Authority:
    return Authority()


@pytest.fixture
def issuer(given: Authority) -> Iterator[Listening]:
    with authority.listening(given) as listening:
        yield listening


@pytest.fixture
def remote(given: Authority, issuer: Listening) -> Iterator[Listening]:
    with server.listening(Peer(), authority=given, issuer=issuer.origin) as listening:
        yield listening


@pytest.fixture
def open_remote() -> Iterator[Listening]:
    with server.listening(Peer()) as listening:
        yield listening


def written(desk: Desk, url: str, more: str = "") -> None:
    text = f'[runtime]\nport = 0\n\n[servers.peer]\nurl = "{url}"\n{more}'
    (desk.home / "octave.toml").write_text(text, encoding="utf-8")


def test_a_running_runtime_takes_over_that_one_logs_in_and_out(
    desk: Desk, remote: Listening, given: Authority
) -> None:
    written(desk, f"{remote.origin}/mcp")
    host = remote.origin.removeprefix("http://")
    started = desk.octave("start", "peer", "--json")
    assert started.code == 8
    assert started.json["results"][0]["error"]["code"] == "authorization_needed"
    wants = f"error: `peer` at `{host}` wants a login\nhint: octave auth peer\n"
    assert desk.octave("call", "peer", "echo", "text=hi").told == (8, "", wants)
    done = desk.octave("auth", "peer", environ=BROWSER)
    assert (done.code, done.stdout) == (0, f"peer: logged in at {host}\n")
    assert "consent at `127.0.0.1:" in done.stderr
    assert "/authorize?" in done.stderr
    (status,) = desk.octave("status", "peer", "--json").json["servers"]
    assert (status["state"], status["pid"]) == ("ready", None)
    assert desk.octave("call", "peer", "echo", "text=hi").told == (0, "hi\n", "")
    out = desk.octave("auth", "peer", "--logout", "--json")
    told = {"name": "peer", "status": "logged_out", "host": host, "revoked": True}
    assert out.json == told
    assert len(given.revoked) == 2
    assert desk.octave("call", "peer", "echo", "text=hi").told == (8, "", wants)
    again = desk.octave("auth", "peer", "--logout", "--json")
    assert again.json == {**told, "status": "not_logged_in", "revoked": False}


def test_one_logs_in_and_out_without_a_runtime(
    desk: Desk, remote: Listening, issuer: Listening
) -> None:
    written(desk, f"{remote.origin}/mcp")
    assert desk.octave("auth", "peer", "--json", environ=BROWSER).json["status"] == "logged_in"
    issuer.stop()
    out = desk.octave("auth", "peer", "--logout")
    host, told = (each.origin.removeprefix("http://") for each in (remote, issuer))
    warning = f"warning: `{told}` could not be told: there the login may go on\n"
    assert out.told == (0, f"peer: logged out of {host}\n", warning)


def test_a_server_without_login_says_so(desk: Desk, open_remote: Listening) -> None:
    written(desk, f"{open_remote.origin}/mcp")
    done = desk.octave("auth", "peer", environ=BROWSER)
    host = open_remote.origin.removeprefix("http://")
    assert done.told == (0, f"peer: {host} asks for no login\n", "")


def test_tools_and_calls_of_a_remote_server(desk: Desk, open_remote: Listening) -> None:
    written(desk, f"{open_remote.origin}/mcp")
    assert desk.octave("start", "peer").code == 0
    assert desk.octave("call", "peer", "echo", "text=hi").told == (0, "hi\n", "")
    listed = desk.octave("tools", "peer", "--json")
    assert [tool["name"] for tool in listed.json] == ["echo", "big", "wait", "where"]
    (entry,) = desk.octave("list", "--json").json
    assert (entry["kind"], entry["tools"]) == ("remote", 4)
    (status,) = desk.octave("status", "--json").json["servers"]
    assert (status["state"], status["pid"], status["memoryBytes"]) == ("ready", None, None)
    assert status["instances"] == 1
    assert desk.octave("stop", "peer").told == (0, "stopped peer\n", "")


def test_a_server_that_is_down_exits_8_and_names_the_host_alone(
    desk: Desk, open_remote: Listening
) -> None:
    open_remote.stop()
    written(desk, f"{open_remote.origin}/mcp?k=hush", 'headers = { "X-Key" = "hush-hush" }\n')
    done = desk.octave("call", "peer", "echo")
    host = open_remote.origin.removeprefix("http://")
    assert done.code == 8
    assert f"error: `peer` cannot be reached at `{host}`: " in done.stderr
    assert "hush" not in done.stderr


def test_the_proxy_lends_a_remote_server_to_an_ai_tool(desk: Desk, open_remote: Listening) -> None:
    written(desk, f"{open_remote.origin}/mcp")
    proxy = desk.start("proxy", "peer", stdin=subprocess.PIPE)
    assert proxy.stdin is not None
    assert proxy.stdout is not None
    call = b'{"name":"echo","arguments":{"text":"hi"}}'
    for line in (
        wire.request(1, "initialize", handshake.initialize_params()),
        wire.notification("notifications/initialized"),
        wire.request(2, "tools/call", call),
    ):
        proxy.stdin.write(line + b"\n")
    proxy.stdin.flush()
    answers = [json.loads(proxy.stdout.readline()) for _ in range(2)]
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[1]["result"]["content"][0]["text"] == "hi"
    proxy.stdin.close()
    assert proxy.wait(30) == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["auth", "nobody"], 4, "no server `nobody`"),
        (["auth", "good"], 2, "`good` runs on this machine, so there is nothing to log in to"),
        (["auth", "peer"], 2, "`headers` of `peer` say who asks"),
    ],
)
def test_who_cannot_be_logged_in_to(desk: Desk, words: list[str], code: int, message: str) -> None:
    written(desk, "https://mcp.example/mcp", 'headers = { Authorization = { env = "A" } }\n')
    desk.server("good")
    done = desk.octave(*words)
    assert done.code == code
    assert message in done.stderr
