"""Every golden server, locked: installed, called through `octave proxy NAME`, compared."""

import base64
import contextlib
import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Conversation, Octave
from tests.e2e.golden import SERVERS, check, prepared

HERE = Path(__file__).parent


def write_manifest(home: Path, workdir: Path) -> None:
    home.mkdir(mode=0o700, exist_ok=True)
    text = (HERE / "golden.toml").read_text().replace("{workdir}", str(workdir))
    (home / "octave.toml").write_text(text)


@dataclass(frozen=True)
class Golden:
    """A home with the ten servers, each prepared for its example calls."""

    octave: Octave
    fills: dict[str, Callable[[Any], Any]]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Golden]:
    """Installed from the committed lockfile, and from nothing else."""
    root = tmp_path_factory.mktemp("golden")
    octave = Octave(root / "home", root)
    write_manifest(octave.home, root / "work")
    lock = (HERE / "golden.lock").read_bytes()
    (octave.home / "octave.lock").write_bytes(lock)
    with contextlib.ExitStack() as steps:
        fills = {
            name: steps.enter_context(prepared(server, root / "work"))
            for name, server in SERVERS.items()
        }
        ran = octave("install", "--locked", "--check", "--json")
        assert {result["status"] for result in ran.document["results"]} == {"installed"}
        assert (octave.home / "octave.lock").read_bytes() == lock
        yield Golden(octave, fills)
        octave("shutdown", code=None)


@pytest.mark.xdist_group("golden")
@pytest.mark.parametrize("name", SERVERS)
def test_locked_golden_server_answers_its_example_calls(golden: Golden, name: str) -> None:
    answer_calls(golden.octave, name, golden.fills[name])


@pytest.mark.xdist_group("golden")
def test_memory_keeps_its_graph_across_a_restart(golden: Golden) -> None:
    golden.octave("restart", "memory")
    assert "octave" in golden.octave("call", "memory", "search_nodes", "query=arms").stdout


@pytest.mark.xdist_group("golden")
def test_no_wrapper_stands_between_the_runtime_and_its_servers(golden: Golden) -> None:
    octave = golden.octave
    octave("start", "everything", "time")
    servers = octave("status", "everything", "time", "--json").document["servers"]
    words = [command_of(server) for server in servers]
    assert all(Path(argv[0]).is_absolute() for argv in words)
    assert [Path(argv[0]).name for argv in words] == ["node", "python"]
    files = [[word for word in argv[1:] if not word.startswith("-")] for argv in words]
    assert all(Path(argv[0]).is_absolute() for argv in files)


def command_of(server: dict[str, Any]) -> list[str]:
    return Path(f"/proc/{server['pid']}/cmdline").read_text(encoding="utf-8").split("\0")


@pytest.mark.xdist_group("golden")
def test_a_server_on_octaves_node_flags_fetches_from_loopback(golden: Golden) -> None:
    octave = golden.octave
    address = golden.fills["fetch"]("http://127.0.0.1:{port}/index.html")
    words = ("call", "everything", "gzip-file-as-resource", "name=page.gz", f"data={address}")
    result = octave(*words, "outputType=resource", "--json").document
    packed = result["content"][0]["resource"]["blob"]
    assert b"eight arms, one heart" in gzip.decompress(base64.b64decode(packed))
    (server,) = octave("status", "everything", "--json").document["servers"]
    assert "--optimize-for-size" in command_of(server)


@pytest.mark.newest
@pytest.mark.campaign
@pytest.mark.parametrize("name", SERVERS)
def test_newest_golden_server_answers_its_example_calls(
    octave: Octave, tmp_path: Path, name: str
) -> None:
    write_manifest(octave.home, tmp_path / "work")
    manifest = octave.home / "octave.toml"
    tables = manifest.read_text().split("\n\n")
    manifest.write_text(next(t for t in tables if t.startswith(f"[servers.{name}]")) + "\n")
    with prepared(SERVERS[name], tmp_path / "work") as fill:
        octave("install", "--check")
        answer_calls(octave, name, fill)


def answer_calls(octave: Octave, name: str, fill: Callable[[Any], Any]) -> None:
    server = SERVERS[name]
    conversation = Conversation(octave.start("proxy", name))
    conversation.initialize()
    tools = conversation.request("tools/list", {})["result"]["tools"]
    assert len(tools) == server["expect_tools"]
    for call in server["calls"]:
        params = {"name": call["tool"], "arguments": fill(call["arguments"])}
        answer = conversation.request("tools/call", params)
        check(answer["result"], fill(call["expect"]))
    assert conversation.close() == 0
