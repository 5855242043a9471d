"""A home with all that can be lost: two versions of a server, a secret, and what is to come."""

import json
import subprocess
import sys
from pathlib import Path

from tests.packages.forked import octave
from tests.packages.story import GOOD, SERVERS, World
from tests.packages.wheel_index import WheelIndex

_ENVIRON = {"EDITOR": "true"}


def furnish(root: Path, index: WheelIndex) -> World:
    """Install story-good 1.0 and then 2.0, with a secret; offer 3.0, and story-next.

    Its range is `>=1`, so that there is an update and a rollback. Cursor has a server `mine`.
    """
    world = World(root, index, dict(_ENVIRON))
    for version in ("1.0", "2.0"):
        world.offer("story-good", GOOD, version)
        words = ["install", f"pypi:story-good@{version}", "-e", "X_TOKEN"]
        assert octave(world, *words, environ={"X_TOKEN": "hush"}).code == 0
    assert octave(world, "set", "story-good", "version=>=1").code == 0
    assert octave(world, "install").code == 0
    world.offer("story-good", GOOD, "3.0")
    world.offer("story-next", GOOD)
    (root / ".cursor").mkdir()
    entry = {"command": sys.executable, "args": [str(SERVERS / "good.py")]}
    text = json.dumps({"mcpServers": {"mine": entry}})
    (root / ".cursor" / "mcp.json").write_text(text, encoding="utf-8")
    return world


def copied(world: World, root: Path) -> World:
    """Return a copy of `world` in the empty folder `root`."""
    subprocess.run(["cp", "-a", f"{world.root}/.", root], check=True)
    return World(root, world.index, dict(_ENVIRON))
