"""The everyday ten at once stay small, and nothing of them is kept when they sleep."""

import json
import sys
from pathlib import Path

import pytest

from tests.bench.memory import EVERYDAY, installed, own_weight
from tests.e2e.conftest import Octave

RUNNING_MIB = 450
STOPPED_MIB = 60
LARGE_BYTES = 15_000_000
LARGE_MESSAGES = 8
GOOD = Path(__file__).parent.parent / "servers" / "good.py"


@pytest.mark.campaign
def test_ten_everyday_servers_and_the_runtime_stay_below_their_limits(tmp_path: Path) -> None:
    with installed(tmp_path / "home", EVERYDAY) as bench:
        weights = bench.under_octave(EVERYDAY)
    assert weights.pop("runtime, guardian, all stopped") < STOPPED_MIB
    assert sum(weights.values()) < RUNNING_MIB, weights


@pytest.mark.campaign
def test_what_large_messages_took_is_given_back_when_the_server_stops(octave: Octave) -> None:
    octave.home.mkdir(mode=0o700)
    command = json.dumps([sys.executable, str(GOOD)])
    manifest = f"[runtime]\nport = 0\n\n[servers.good]\ncommand = {command}\n"
    (octave.home / "octave.toml").write_text(manifest, encoding="utf-8")
    octave("serve", "--detach")
    runtime = octave("status", "--json").document["runtime"]["pid"]
    large = json.dumps({"text": "x" * LARGE_BYTES})
    for _ in range(LARGE_MESSAGES):
        octave("call", "good", "echo", "--args", "-", stdin=large)
    octave("stop", "good")
    assert own_weight(runtime, ()) < STOPPED_MIB
