"""The interpreter of an installed server is gone, as after an upgrade of the system's packages."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages.npm_registry import NpmRegistry, running
from tests.packages.story import GOOD, World

SERVER = """
process.stdin.on("data", (text) => {
  for (const line of String(text).split("\\n").filter(Boolean)) {
    const { id, method } = JSON.parse(line);
    if (id === undefined) continue;
    const result = method === "initialize"
      ? { protocolVersion: "2025-06-18", capabilities: { tools: {} },
          serverInfo: { name: "n", version: "1" } }
      : method === "tools/list"
        ? { tools: [{ name: "t", inputSchema: { type: "object" } }] }
        : { content: [{ type: "text", text: "called" }] };
    console.log(JSON.stringify({ jsonrpc: "2.0", id, result }));
  }
});
"""


@pytest.fixture
def registry() -> Iterator[NpmRegistry]:
    yield from running()


def test_a_python_that_vanished_is_told_at_the_call_and_put_back_by_install(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    (python,) = world.home.glob("servers/story-good/*/venv/bin/python")
    python.unlink()
    python.symlink_to(world.root / "gone" / "python3.11")
    done = world.octave("call", "story-good", "echo", "text=hi", "--json")
    assert (done.code, done.error["hint"]) == (6, "octave install")
    assert "python" in done.error["message"]
    assert world.octave("install").code == 0
    assert world.call("story-good", "echo", "text=hi").stdout == "hi\n"


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_a_node_that_vanished_is_told_at_the_call_and_another_taken_by_install(
    world: World, registry: NpmRegistry
) -> None:
    node, npm = (os.path.realpath(str(shutil.which(name))) for name in ("node", "npm"))
    cellars = [world.root / name for name in ("node-a", "node-b")]
    for cellar in cellars:
        (cellar / "bin").mkdir(parents=True)
        # A copy: node tells its own place by following links.
        shutil.copy(node, cellar / "bin/node")
        (cellar / "lib/node_modules").mkdir(parents=True)
        (cellar / "lib/node_modules/npm").symlink_to(Path(npm).parents[1])
    paths = [f"{cellar}/bin:{world.environ['PATH']}" for cellar in cellars]
    world.environ |= {"npm_config_registry": registry.url, "PATH": paths[0]}
    registry.offer("server", files={"index.js": SERVER})
    done = world.octave("install", "npm:server", "--json")
    assert done.json["results"][0]["checked"], done
    assert world.record("server")["command"][0] == str(cellars[0] / "bin/node")
    lock = world.lockfile
    shutil.rmtree(cellars[0])
    world.environ["PATH"] = paths[1]
    done = world.octave("call", "server", "t", "--json")
    assert (done.code, done.error["hint"]) == (6, "octave install")
    assert "node" in done.error["message"]
    assert world.octave("install", "--locked").code == 0
    assert world.call("server", "t").stdout == "called\n"
    assert world.record("server")["command"][0] == str(cellars[1] / "bin/node")
    assert world.lockfile == lock
