"""What Octave keeps on disk: killed writers, full disks, files damaged by something else."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from octave.clients import records
from octave.errors import OctaveError
from octave.home import Home, Workspace
from octave.packages import (
    ledger,
    lockfile,
    manifest,
    manifest_edit,
    offered,
    store,
    workspaces,
)
from octave.packages.lockfile import Pin
from octave.packages.manifest import Reference
from octave.packages.secrets import Secrets
from octave.packages.store import Record
from octave.serve import claim
from tests.serve.running import CHECKOUT, SERVERS, request, running
from tests.small_disk import fill, small_disk

pytestmark = pytest.mark.anyio

KILLS = [
    60,
    pytest.param(1000, marks=[pytest.mark.campaign, pytest.mark.timeout(400)]),
]
FILES = 13
"""Kinds of files the writer writes: of each one temporary file may wait for its sweep."""
DAMAGES = {"cut": slice(10), "empty": slice(0), "garbage": None}
MACHINE_FILES = ("workspaces.json", "stopped.json", "catalogue/good.json")


@pytest.mark.parametrize("kills", KILLS)
def test_killed_writers_tear_no_file_lose_no_state_and_leave_no_litter(
    tmp_path: Path, kills: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.state_writer", tmp_path, str(kills), "20260728"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["kills"] == kills
    assert counted["kills_in_a_write"] > kills / 20
    wrong = {name: counted[name] for name in ("torn", "lost", "bad_files", "left")}
    assert not any(wrong.values()), (wrong, done.stderr)
    assert counted["most_litter"] <= FILES


def install(workspace: Workspace, name: str, **table: object) -> Path:
    """Install tests/servers/good.py under a name as far as the files tell; return its record."""
    integrity = "sha256:" + "a" * 64
    row = {"name": name, "version": "1.0", "hashes": [integrity]}
    pin = Pin(name, f"pypi:{name}@*", "pypi", name, "1.0", integrity, (row,))
    command = (sys.executable, str(SERVERS / "good.py"))
    record = Record(name, "pypi", name, "1.0", integrity, pin.graph_digest, command)
    store.publish(workspace.home, store.stage(workspace.home, name), record, pin.folder)
    manifest_edit.add_server(workspace.manifest, name, {"package": f"pypi:{name}", **table})
    with ledger.changing(workspace):
        ledger.write_pins(workspace, {**lockfile.read(workspace.lockfile).pins, name: pin})
    return store.record_path(workspace.home, name, pin.folder)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A home with two servers that run."""
    return with_two_servers(tmp_path / "home")


def with_two_servers(root: Path) -> Workspace:
    workspace = Workspace.of_home(Home(root))
    workspace.prepare()
    workspace.manifest.write_text("runtime.port = 0\n", encoding="utf-8")
    Secrets(workspace.home).set("good/KEY", "value")
    install(workspace, "good", env={"KEY": Reference("secret", "good/KEY")})
    install(workspace, "other")
    return workspace


def octave(workspace: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "octave", *words],
        cwd=workspace.home.root.parent,
        env={
            **os.environ,
            "OCTAVE_HOME": str(workspace.home.root),
            "PYTHONPATH": str(CHECKOUT),
            # Nothing here is to be looked for on any network.
            "UV_OFFLINE": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def damage(path: Path, kept: slice | None) -> bytes:
    content = b"\xff\0{ not what it was" if kept is None else path.read_bytes()[kept]
    path.write_bytes(content)
    path.chmod(0o600)
    return content


async def echo(workspace: Workspace, text: str, server: str = "good") -> str:
    found = await request(
        workspace, "octave/call", server=server, tool="echo", arguments={"text": text}
    )
    return str(found["content"][0]["text"])


async def used(workspace: Workspace) -> None:
    """Let a runtime write all that one remembers."""
    async with running(workspace):
        await request(workspace, "octave/tools")
        await request(workspace, "octave/stop", names=["other"])


@pytest.mark.parametrize("kept", DAMAGES.values(), ids=DAMAGES)
async def test_row_41_what_octave_remembers_is_kept_aside_and_made_anew(
    workspace: Workspace, caplog: pytest.LogCaptureFixture, kept: slice | None
) -> None:
    await used(workspace)
    state = workspace.state
    damaged = {name: damage(state / name, kept) for name in MACHINE_FILES}
    for name in ("runtime.json", "token", "0.run"):
        # Of a runtime that is dead: nothing of it is worth keeping.
        (workspace.run / name).write_bytes(b"\xff" if kept is None else b"x"[kept])
    with caplog.at_level(logging.WARNING):
        async with running(workspace) as told:
            assert await echo(workspace, "hi") == "hi"
            tools = await request(workspace, "octave/tools")
            assert {tool["server"] for tool in tools} == {"good", "other"}
            assert len(workspace.token.read_text(encoding="ascii")) >= claim.FIXED_TOKEN_CHARS
            assert told.facts["pid"] == workspace.runtime()["pid"]
            await request(workspace, "octave/stop", names=["other"])
    for name, content in damaged.items():
        (bad,) = state.glob(f"{name}.bad-*")
        assert bad.read_bytes() == content
        assert f"`{state / name}` was damaged: it is kept as `{bad.name}`" in caplog.text
    assert workspaces.installed(workspace).keys() == {"good", "other"}
    assert claim.read_choices(workspace) == {"other"}
    assert b"echo" in workspace.catalogue("good").read_bytes()
    assert len(list(state.rglob("*.bad-*"))) == len(MACHINE_FILES)
    assert not list(workspace.run.glob("*.run"))


def test_row_41_the_records_of_ai_tools_are_kept_aside(workspace: Workspace) -> None:
    path = workspace.home.clients
    path.write_bytes(b"{")
    assert records.find(workspace.home, path, "/x") is None
    (bad,) = path.parent.glob("clients.json.bad-*")
    assert bad.read_bytes() == b"{"
    assert not path.exists()


def test_row_41_a_verb_warns_of_the_damaged_file_and_does_its_work(workspace: Workspace) -> None:
    path = workspace.home.workspaces
    damage(path, DAMAGES["cut"])
    done = octave(workspace, "list", "--json")
    assert done.returncode == 0
    assert [row["state"] for row in json.loads(done.stdout)] == ["idle", "idle"]
    (bad,) = path.parent.glob("*.bad-*")
    told = f"`{path}` was damaged: it is kept as `{bad.name}` and made anew\n"
    assert done.stderr == told
    again = octave(workspace, "list", "--json")
    assert (again.stdout, again.stderr) == (done.stdout, "")


def test_row_41_a_broken_record_is_named_and_the_rest_is_listed(workspace: Workspace) -> None:
    folder = workspaces.installed(workspace)["good"]
    path = store.record_path(workspace.home, "good", folder)
    content = damage(path, DAMAGES["cut"])
    done = octave(workspace, "list", "--json")
    assert [row["state"] for row in json.loads(done.stdout)] == ["failed", "idle"]
    told = f"`good` is not installed: its record `{path}` is damaged"
    assert done.stderr == f"warning: {told}; hint: octave install\n"
    called = octave(workspace, "call", "good", "echo", "text=hi")
    assert called.returncode == 6
    assert called.stderr == f"error: {told}\nhint: octave install\n"
    assert octave(workspace, "call", "other", "echo", "text=hi").stdout == "hi\n"
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["workspaces.json", "stopped.json", "octave.lock"])
def test_row_41_a_file_of_a_newer_octave_is_refused_by_its_name(
    workspace: Workspace, name: str
) -> None:
    path = workspace.state / name
    content = b"version = 2\n" if name == "octave.lock" else b'{"format": 2, "new": true}'
    path.write_bytes(content)
    for words in (["list"], ["serve"], ["call", "other", "echo", "text=hi"]):
        done = octave(workspace, *words)
        assert done.returncode == (7 if name == "octave.lock" else 1)
        assert f"{name}` has format 2, and this version of Octave reads 1" in done.stderr
        assert "newer Octave" in done.stderr
    assert path.read_bytes() == content
    assert not list(workspace.state.glob("*.bad-*"))


def test_row_41_a_record_of_a_newer_octave_concerns_that_server_alone(
    workspace: Workspace,
) -> None:
    folder = workspaces.installed(workspace)["good"]
    path = store.record_path(workspace.home, "good", folder)
    path.write_bytes(b'{"format": 2}')
    done = octave(workspace, "list", "--json")
    assert [row["state"] for row in json.loads(done.stdout)] == ["failed", "idle"]
    assert "record.json` has format 2, and this version of Octave reads 1" in done.stderr
    assert octave(workspace, "call", "other", "echo", "text=hi").stdout == "hi\n"
    assert path.read_bytes() == b'{"format": 2}'


async def test_row_41_lists_of_a_newer_octave_stay_and_servers_are_asked(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    path = workspace.catalogue("good")
    path.write_bytes(b'{"format": 2}')
    async with running(workspace):
        tools = await request(workspace, "octave/tools")
        assert {tool["server"] for tool in tools} == {"good", "other"}
    assert path.read_bytes() == b'{"format": 2}'
    assert f"`{path}` has format 2, and this version of Octave reads 1" in caplog.text


PERSONS: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "octave.toml": (2, "hint: edit `{path}`", ("list", "install", "serve")),
    "octave.lock": (7, "or delete it and run `octave lock`", ("list", "install", "serve")),
    "secrets.toml": (6, "repair it, or move it away", ()),
}
"""Exit code, what to do, and the verbs that need the file whole; each call needs it."""


@pytest.mark.parametrize("kept", [slice(10), None], ids=["cut", "garbage"])
@pytest.mark.parametrize("name", PERSONS)
def test_row_41_what_a_person_wrote_is_never_replaced(
    workspace: Workspace, name: str, kept: slice | None
) -> None:
    path = workspace.state / name
    content = damage(path, kept)
    code, hint, verbs = PERSONS[name]
    for words in (["call", "good", "echo", "text=hi"], *([verb] for verb in verbs)):
        done = octave(workspace, *words)
        assert (done.returncode, done.stdout) == (code, "")
        assert f"{name}`" in done.stderr
        assert hint.format(path=path) in done.stderr
        assert path.read_bytes() == content
    assert not list(workspace.state.rglob("*.bad-*"))


async def test_row_28_on_a_full_disk_the_runtime_lives_and_the_old_state_stays(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "home", "1m"):
        workspace = with_two_servers(tmp_path / "home")
        async with running(workspace) as told:
            assert await echo(workspace, "before") == "before"
            filler = fill(workspace.state)
            before = state_of(workspace)
            await request(workspace, "octave/stop", names=["other"])
            await request(workspace, "octave/restart", names=["good"])
            assert await echo(workspace, "full") == "full"
            await request(workspace, "octave/start", names=["other"])
            assert await echo(workspace, "full", "other") == "full"
            for change in (refused_pins, refused_secret, refused_trust):
                with pytest.raises(OSError, match="No space left"):
                    change(workspace)
            assert state_of(workspace) == before
            filler.unlink()
            await request(workspace, "octave/stop", names=["other"])
            assert claim.read_choices(workspace) == {"other"}
            assert await echo(workspace, "after") == "after"
        assert not told.warnings
        assert not list(workspace.state.rglob("*.tmp"))


def state_of(workspace: Workspace) -> dict[str, bytes]:
    paths = [path for path in workspace.state.rglob("*") if path.suffix in {".toml", ".json"}]
    paths.append(workspace.lockfile)
    return {str(path): path.read_bytes() for path in paths}


def refused_pins(workspace: Workspace) -> None:
    with ledger.changing(workspace):
        pins = lockfile.read(workspace.lockfile).pins
        manifest_edit.remove_server(workspace.manifest, "other")
        ledger.write_pins(workspace, {"good": pins["good"]})


def refused_secret(workspace: Workspace) -> None:
    Secrets(workspace.home).set("good/MORE", "x")


def refused_trust(workspace: Workspace) -> None:
    workspaces.remember(workspace, {})


def test_row_28_verbs_on_a_full_disk_say_so_or_do_without_more_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "home", "1m"):
        workspace = with_two_servers(tmp_path / "home")
        octave(workspace, "call", "good", "echo", "text=hi")
        filler = fill(workspace.state)
        # What is to be removed goes first, to make room for saying so.
        going = str(workspace.home.servers / "other")
        before = {k: v for k, v in state_of(workspace).items() if not k.startswith(going)}
        assert octave(workspace, "list").returncode == 0
        for words in (["uninstall", "other"], ["serve"]):
            done = octave(workspace, *words, "--json")
            error: dict[str, Any] = json.loads(done.stderr)["error"]
            assert (done.returncode, error["code"]) == (1, "storage_failed")
            assert "No space left" in error["message"]
            assert "space" in error["hint"]
        assert octave(workspace, "call", "good", "echo", "text=hi").stdout == "hi\n"
        assert state_of(workspace) == before
        filler.unlink()
        assert octave(workspace, "uninstall", "other").returncode == 0


def test_a_folder_in_the_place_of_a_file_is_told_or_passed_by(workspace: Workspace) -> None:
    path = workspace.catalogue("good")
    path.mkdir()
    assert offered.load(path, "1.0", "x") is None
    workspace.home.workspaces.unlink()
    workspace.home.workspaces.mkdir()
    with pytest.raises(OctaveError, match="cannot read"):
        workspaces.trusted(Workspace(workspace.home, path), manifest.load(workspace.manifest))
