"""The script that verifies registry entries, on one small real server."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from octave.packages.registry import bundled_folder

CHECKOUT = Path(__file__).parents[2]


def test_an_entry_is_installed_started_compared_and_its_figures_rewritten(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    registry.mkdir()
    shutil.copy(bundled_folder() / "sequential-thinking.json", registry)
    path = registry / "sequential-thinking.json"
    before = json.loads(path.read_bytes())

    words = ["sequential-thinking", "--write", "--registry", str(registry)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.registry_check", *words],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    after = json.loads(path.read_bytes())
    key = "io.github.octave-mcp/registry"
    (old,), (new,) = (one["_meta"][key]["packages"].values() for one in (before, after))
    assert new["figures"]["tools"] == old["figures"]["tools"] == 1
    assert new["figures"]["startSeconds"] > 0
    assert new["figures"]["memoryBytes"] > 5_000_000
    assert new["figures"]["version"] == after["packages"][0]["version"] == after["version"]
    new["figures"] = old["figures"]
    after["packages"][0]["version"] = before["packages"][0]["version"]
    after["version"] = before["version"]
    assert after == before
