"""The script that verifies registry entries: which it takes, what it compares, what it rewrites."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from octave.errors import StartFailed
from octave.packages.launch import LaunchSpec
from octave.packages.registry import Registry, bundled_folder
from octave.packages.server_json import Figures
from tests.registry_check import chosen, differences, measured, rewritten, why

FOLDER = bundled_folder()
REGISTRY = Registry(FOLDER)
SERVERS = Path(__file__).parents[1] / "servers"
SEEN = Figures(
    version="9.9.9",
    protocol_version="2025-11-25",
    start_s=0.5,
    cold_start_s=1.5,
    memory_bytes=40_000_000,
    platforms=("linux",),
    tools=2,
)


def spec(program: Path, folder: Path) -> LaunchSpec:
    return LaunchSpec("x", (sys.executable, str(program)), folder, lambda: {"PATH": "/usr/bin"})


def test_it_takes_the_named_entries_or_some_that_need_no_secret() -> None:
    assert [entry.short_name for entry in chosen(REGISTRY, ["time", "k8s"], 1)] == [
        "time",
        "kubernetes",
    ]
    some = chosen(REGISTRY, [], 5)
    assert len(some) == 5
    assert not any(entry.preferred().required_env for entry in some)


def test_other_numbers_of_tools_are_differences_and_times_are_none() -> None:
    slower = msgspec.structs.replace(SEEN, version="10", start_s=9.0, memory_bytes=9, resources=1)
    assert list(differences(SEEN, slower)) == []
    more = msgspec.structs.replace(slower, tools=3)
    assert list(differences(SEEN, more)) == ["tools: 2 in 9.9.9, 3 in 10"]
    assert list(differences(None, SEEN)) == ["it was never tried before"]


@pytest.mark.parametrize("name", ["time", "github", "browserbase"])
def test_only_figures_and_versions_are_rewritten(name: str) -> None:
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    choice = REGISTRY.get(name).preferred()
    after = rewritten(text, choice, SEEN)

    expected = json.loads(text)
    expected["version"] = expected["packages"][0]["version"] = "9.9.9"
    own = expected["_meta"]["io.github.octave-mcp/registry"]["packages"][choice.request]
    own["figures"] = {
        "version": "9.9.9",
        "protocolVersion": "2025-11-25",
        "tools": 2,
        "startSeconds": 0.5,
        "coldStartSeconds": 1.5,
        "memoryBytes": 40_000_000,
        "platforms": ["linux"],
    }
    assert json.loads(after) == expected
    assert after == json.dumps(json.loads(after), indent=2) + "\n"
    assert rewritten(after, choice, SEEN) == after


def test_a_server_is_measured_while_it_lives_and_gone_afterwards(tmp_path: Path) -> None:
    figures = measured(spec(SERVERS / "good.py", tmp_path), tmp_path / "stderr")
    assert figures.tools == 3
    assert figures.start_s > 0
    assert figures.memory_bytes > 1_000_000


def test_a_server_that_ends_at_once_is_a_failure(tmp_path: Path) -> None:
    program = tmp_path / "ends.py"
    program.write_text("import sys; sys.exit('no kubeconfig is here')", encoding="utf-8")
    stderr = tmp_path / "stderr"
    with pytest.raises(StartFailed, match="ended") as raised:
        measured(spec(program, tmp_path), stderr)
    told = why(raised.value, REGISTRY.get("kubernetes").preferred(), stderr)
    assert "its entry says that it needs a kubeconfig with a current context" in told
    assert told.endswith("it wrote: no kubeconfig is here")
