"""Installing as a newcomer does: the first command, four at once, killed in the middle."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import OCTAVE, Octave, run


def test_the_first_command_of_a_newcomer(octave: Octave) -> None:
    ran = octave("install", "everything")
    assert ran.stdout.startswith("installed everything ")
    assert octave("call", "everything", "echo", "message=hello").stdout == "Echo: hello\n"


def test_a_package_the_registry_does_not_know(octave: Octave) -> None:
    octave("install", "npm:@modelcontextprotocol/server-everything@2026.8.31", "--as", "mine")
    assert octave("call", "mine", "echo", "message=hi").stdout == "Echo: hi\n"
    octave("install", "pypi:mcp-server-time@2026.10.19", "--as", "clock")
    names = [row["name"] for row in octave("list", "--json").document]
    assert names == ["mine", "clock"]
    octave("uninstall", "mine")
    assert [row["name"] for row in octave("list", "--json").document] == ["clock"]
    assert not (octave.home / "servers" / "mine").exists()


def test_a_secret_that_is_missing_leaves_the_server_installed_and_unchecked(
    octave: Octave,
) -> None:
    ran = octave("install", "github", "--json")
    result = ran.document["results"][0]
    assert (result["status"], result["checked"]) == ("installed", False)
    assert "GITHUB_PERSONAL_ACCESS_TOKEN" in result["warning"]
    failed = octave("call", "github", "search_repositories", "query=x", "--json", code=6)
    assert "GITHUB_PERSONAL_ACCESS_TOKEN" in failed.error["message"]
    token = Octave(octave.home, octave.cwd, {"GITHUB_PERSONAL_ACCESS_TOKEN": "ghp_not_a_token"})
    again = token("install", "github", "-e", "GITHUB_PERSONAL_ACCESS_TOKEN", "--json")
    assert again.document["results"][0]["tools"] == 26
    for path in octave.home.rglob("*"):
        if path.is_file() and path.name != "secrets.toml":
            assert b"ghp_not_a_token" not in path.read_bytes(), path


def test_memory_keeps_its_graph_in_its_data_folder_and_not_in_its_package(octave: Octave) -> None:
    octave("install", "memory")
    entity = '[{"name": "octave", "entityType": "project", "observations": ["eight arms"]}]'
    octave("call", "memory", "create_entities", f"entities:={entity}")
    assert "eight arms" in (octave.home / "data" / "memory" / "memory.jsonl").read_text()
    assert "octave" in octave("call", "memory", "search_nodes", "query=arms").stdout
    octave("uninstall", "memory")
    assert (octave.home / "data" / "memory" / "memory.jsonl").exists()


def test_four_installs_of_one_server_at_once(octave: Octave) -> None:
    processes = [octave.start("install", "time", "--json") for _ in range(4)]
    ended = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, ended
    statuses = sorted(out.count('"installed"') for out, _ in ended)
    assert statuses == [0, 0, 0, 1]
    assert len(list((octave.home / "servers" / "time").iterdir())) == 1


@pytest.mark.timeout(900)
@pytest.mark.campaign
def test_killed_at_random_moments_the_previous_state_still_works(octave: Octave) -> None:
    octave("install", "time")
    before = octave("list", "--json").document
    chance = random.Random(20260728)
    began = time.monotonic()
    octave("install", "everything")
    usual_s = time.monotonic() - began
    octave("uninstall", "everything")
    for _ in range(10):
        shutil.rmtree(octave.home / "cache", ignore_errors=True)
        kill_after(octave, chance.uniform(0.05, usual_s))
        rows = octave("list", "--json").document
        assert [row for row in rows if row["name"] == "time"] == before
        halves = [
            folder
            for folder in (octave.home / "servers").glob("*/*")
            if not (folder / "record.json").is_file()
        ]
        assert halves == []
        octave("uninstall", "everything", code=None)
    assert octave("tools", "time").stdout
    octave("install", "everything")
    assert octave("call", "everything", "echo", "message=on").stdout == "Echo: on\n"
    assert not list((octave.home / "staging").rglob("package.json"))


def kill_after(octave: Octave, delay_s: float) -> None:
    process = subprocess.Popen(
        [OCTAVE, "install", "everything"],
        cwd=octave.cwd,
        env=octave.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(timeout=delay_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_without_node_a_private_one_is_installed_and_used(octave: Octave, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("git", "env", "sh"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    bare = Octave(octave.home, octave.cwd, {"PATH": str(tools)})
    bare("install", "everything")
    assert bare("call", "everything", "echo", "message=hello").stdout == "Echo: hello\n"
    nodes = list((octave.home / "runtimes").rglob("bin/node"))
    assert len(nodes) == 1
    assert run([nodes[0], "--version"]).stdout.startswith("v24.")


def test_a_server_gets_a_node_that_its_engines_allow(octave: Octave, tmp_path: Path) -> None:
    (tmp_path / "vault" / ".obsidian").mkdir(parents=True)
    vault = f"notes={tmp_path / 'vault'}"
    ran = octave("install", "obsidian", "--arg=--vault", f"--arg={vault}", "--check", "--json")
    assert ran.document["results"][0]["checked"]
    octave("start", "obsidian")
    (server,) = octave("status", "obsidian", "--json").document["servers"]
    node = Path(f"/proc/{server['pid']}/exe").resolve()
    major = int(run([node, "--version"]).stdout.removeprefix("v").partition(".")[0])
    assert major >= 22


@pytest.mark.parametrize(
    ("words", "code", "slug"),
    [
        (("install", "githb"), 4, "server_not_found"),
        (("install", "npm:octave-no-such-package-at-all", "-y"), 4, "package_not_found"),
        (("install", "pypi:octave-no-such-package-at-all", "-y"), 4, "package_not_found"),
        (("install", "everything@0.0.1-none"), 4, "version_not_found"),
        (("install", "pypi:mcp-server-time@0.0.1"), 4, "version_not_found"),
        (("install", "npm:is-number@7.0.0", "-y"), 1, "install_failed"),
        (("install", "pypi:six", "-y"), 1, "install_failed"),
        (("install", "npm:--global"), 2, "usage"),
        (("install", "../../x"), 2, "usage"),
        (("install", "x;touch pwn"), 4, "server_not_found"),
        (("call", "nothing", "at-all"), 4, "server_not_found"),
        (("uninstall", "nothing"), 4, "server_not_found"),
    ],
)
def test_bad_input_is_told_with_its_exit_code_and_changes_nothing(
    octave: Octave, words: tuple[str, ...], code: int, slug: str
) -> None:
    ran = octave(*words, "--json", code=code)
    assert ran.stdout == ""
    assert ran.error["code"] == slug
    assert ran.error["hint"]
    assert not (octave.home / "octave.lock").exists()
    assert not list((octave.home / "servers").glob("*/*"))
    assert not list(octave.cwd.iterdir())


def test_no_network_exits_8(octave: Octave) -> None:
    closed = {
        "npm_config_registry": "http://127.0.0.1:9/",
        "npm_config_fetch_retries": "0",
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
        "UV_HTTP_RETRIES": "0",
    }
    alone = Octave(octave.home, octave.cwd, closed)
    for request in ("everything", "time"):
        ran = alone("install", request, "--json", code=8)
        assert ran.error["code"] == "registry_unreachable"
