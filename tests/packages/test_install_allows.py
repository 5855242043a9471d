"""`--allow-scripts` and `--allow-build`: code of packages that runs while installing, if named."""

import shutil
import tomllib
from collections.abc import Iterator

import pytest

from tests.packages.npm_registry import NpmRegistry, running
from tests.packages.story import GOOD, World

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
SERVER = """#!/usr/bin/env node
const fs = require("fs"), path = require("path");
const dep = path.dirname(require.resolve("story-dep/package.json"));
if (!fs.existsSync(path.join(dep, "made"))) { console.error("no binding"); process.exit(1); }
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  const results = {
    initialize: { protocolVersion: params && params.protocolVersion, capabilities: { tools: {} },
                  serverInfo: { name: "s", version: "1" } },
    "tools/list": { tools: [] },
  };
  const result = results[method];
  if (id !== undefined) console.log(JSON.stringify({ jsonrpc: "2.0", id, result }));
});
"""
"""A server that starts only when the install script of its dependency has run."""


@pytest.fixture
def registry(world: World) -> Iterator[NpmRegistry]:
    for registry in running():
        world.environ["npm_config_registry"] = registry.url
        world.environ["npm_config_fetch_retries"] = "0"
        registry.offer(
            "story-node", files={"index.js": SERVER}, dependencies={"story-dep": "*", "plain": "*"}
        )
        registry.offer("story-dep", scripts={"postinstall": "echo x > made"})
        registry.offer("plain")
        yield registry


@needs_npm
def test_the_scripts_of_a_named_package_run_and_the_choice_is_written_down(
    world: World, registry: NpmRegistry
) -> None:
    done = world.octave("install", "npm:story-node")
    assert done.code == 6
    assert "not run: `story-dep`; `--allow-scripts NAME`" in done.stderr
    assert "`octave install npm:story-node --allow-scripts story-dep`" in done.stderr
    assert not (world.home / "octave.toml").exists()
    done = world.octave("install", "npm:story-node", "--allow-scripts", "story-dep", "--check")
    assert done.code == 0, done.stderr
    assert tomllib.loads(world.manifest)["servers"]["story-node"]["allow_scripts"] == ["story-dep"]
    assert world.octave("lock", "--check").code == 0
    # Exactly what the lock says runs; another wish is another lock.
    shutil.rmtree(world.home / "servers")
    assert world.octave("install", "--locked", "--check").code == 0
    text = world.manifest.replace('allow_scripts = ["story-dep"]', "")
    (world.home / "octave.toml").write_text(text, encoding="utf-8")
    assert world.octave("install", "--locked").code == 7
    assert world.octave("lock", "--check").code == 7


@needs_npm
@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("absent", "`story-node` needs no `absent`", "`--allow-scripts story-dep`"),
        ("story-dep,plain", "`plain` has no install script", "`--allow-scripts story-dep`"),
        ("../x", "cannot be the name of an npm package", "PACKAGE"),
    ],
)
def test_a_name_that_has_no_scripts_is_told_with_those_that_have(
    world: World, registry: NpmRegistry, name: str, said: str, hint: str
) -> None:
    done = world.octave("install", "npm:story-node", "--allow-scripts", name)
    assert done.code == 2
    assert said in done.stderr
    assert hint in done.stderr
    assert not (world.home / "octave.toml").exists()


def test_a_source_is_built_where_it_is_named_and_the_choice_is_written_down(world: World) -> None:
    marker = world.root / "marker"
    world.offer("story-good", GOOD)
    wheel = world.index.files.pop("story_good-1.0-py3-none-any.whl")
    world.index.add_buildable("story-good", "1.0", marker, wheel=wheel)
    done = world.octave("install", "pypi:story-good")
    assert done.code == 1
    assert "`octave install pypi:story-good --allow-build story-good`" in done.stderr
    assert not marker.exists()
    done = world.octave("install", "pypi:story-good", "--allow-build", "Story_good", "--check")
    assert done.code == 0, done.stderr
    assert marker.exists()
    assert tomllib.loads(world.manifest)["servers"]["story-good"]["allow_build"] == ["Story_good"]
    assert world.octave("install", "--locked", "--check").code == 0
    assert world.octave("audit").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("npm:x", "--allow-build", "y"), "`npm:x` is none"),
        (("pypi:x", "--allow-scripts", "y"), "`pypi:x` is none"),
        (("npm:x", "npm:y", "--allow-scripts", "z"), "go with one name"),
        (("--allow-build", "z"), "go with one name"),
    ],
)
def test_what_is_allowed_must_fit_the_package(
    world: World, words: tuple[str, ...], said: str
) -> None:
    done = world.octave("install", *words)
    assert (done.code, done.stdout) == (2, "")
    assert said in done.stderr


def test_trust_shows_whose_code_runs_while_installing(world: World) -> None:
    folder = world.root / "project"
    folder.mkdir()
    (folder / "octave.toml").write_text(
        '[servers.a]\npackage = "npm:a"\nallow_scripts = ["b"]\n'
        '[servers.c]\npackage = "pypi:c"\nallow_build = ["d"]\n',
        encoding="utf-8",
    )
    shown = world.octave("trust", cwd=folder).stderr
    assert "runs the install scripts of: b\n" in shown
    assert "builds from source, which runs code of: d\n" in shown


@pytest.mark.parametrize("key", ["allow_scripts", "allow_build"])
def test_a_key_for_the_other_kind_of_package_is_refused(world: World, key: str) -> None:
    package = "pypi:x" if key == "allow_scripts" else "npm:x"
    world.home.mkdir()
    text = f'[servers.x]\npackage = "{package}"\n{key} = ["y"]\n'
    (world.home / "octave.toml").write_text(text, encoding="utf-8")
    done = world.octave("list")
    assert done.code == 2
    assert f"`{key}` in [servers.x] goes with" in done.stderr
