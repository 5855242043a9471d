"""Servers from a folder with a package of one's own in it: packed, locked, installed, updated."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octave.errors import InstallFailed
from octave.packages.ecosystems.folder_npm import files_of
from tests.cli.terminal import on_terminal
from tests.packages.forked import octave
from tests.packages.npm_registry import NpmRegistry, asked_by, package_tarball
from tests.packages.story import SERVERS, World
from tests.packages.test_release_age import days_ago

NODE = """#!/usr/bin/env node
const read = require("readline").createInterface({ input: process.stdin });
read.on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  const results = {
    initialize: {
      protocolVersion: params?.protocolVersion,
      capabilities: { tools: {} },
      serverInfo: { name: "notes", version: "1" },
    },
    "tools/list": { tools: [{ name: "said", inputSchema: { type: "object" } }] },
    "tools/call": { content: [{ type: "text", text: require("dep") + "-WORD" }] },
    ping: {},
  };
  const result = results[method];
  const answer = result ? { result } : { error: { code: -32601, message: method } };
  process.stdout.write(JSON.stringify({ jsonrpc: "2.0", id, ...answer }) + "\\n");
});
"""
BACKEND = '''
import base64, csv, hashlib, io, pathlib, zipfile

def build_wheel(folder, settings=None, metadata=None):
    info = "story_hi-0.2.0.dist-info"
    files = {f"story_hi/{path.name}": path.read_text() for path in pathlib.Path("src").iterdir()}
    files[f"{info}/METADATA"] = """Metadata-Version: 2.1
Name: Story.Hi
Version: 0.2.0
Requires-Dist: story-dep
Requires-Dist: never-there ; extra == "all"
"""
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    files[f"{info}/entry_points.txt"] = "[console_scripts]\\nHi = story_hi:main\\n"
    record = io.StringIO()
    writer = csv.writer(record)
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        writer.writerow([name, "sha256=" + digest.decode(), len(text)])
    writer.writerow([f"{info}/RECORD", "", ""])
    files[f"{info}/RECORD"] = record.getvalue()
    wheel = "story_hi-0.2.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, wheel), "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return wheel
'''
PROJECT = """
[project]
name = "story-hi"
version = "0.2.0"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")


@pytest.fixture
def npm(world: World) -> Iterator[NpmRegistry]:
    yield from asked_by(world.environ)


def node_folder(world: World, npm: NpmRegistry, word: str = "one", **manifest: Any) -> Path:
    """Return a folder in the user's own; what it depends on lies in the registry."""
    files = {"index.js": "module.exports = 'dep';"}
    npm.offer("dep", tarball=package_tarball("dep", files=files))
    folder = world.cwd / "mcp-notes"
    folder.mkdir(exist_ok=True)
    described = {
        "name": "@me/notes",
        "version": "0.1.0",
        "bin": {"notes": "./server.js"},
        "files": ["server.js"],
        "dependencies": {"dep": "^1.0.0"},
        "scripts": {"prepack": "touch ran", "prepare": "touch ran", "postinstall": "touch ran"},
        **manifest,
    }
    (folder / "package.json").write_text(json.dumps(described), encoding="utf-8")
    (folder / "server.js").write_text(NODE.replace("WORD", word), encoding="utf-8")
    (folder / "secret.txt").write_text("not packed", encoding="utf-8")
    return folder


def python_folder(world: World) -> Path:
    world.offer("story-dep", "good")
    folder = world.cwd / "hi"
    (folder / "src").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (folder / "backend.py").write_text(BACKEND, encoding="utf-8")
    shutil.copy(SERVERS / "_base.py", folder / "src" / "_base.py")
    main = "def main():\n    import story_dep.server\n"
    (folder / "src" / "__init__.py").write_text(main, encoding="utf-8")
    return folder


@needs_npm
def test_a_folder_of_node_is_packed_locked_and_runs_apart_from_it(
    world: World, npm: NpmRegistry
) -> None:
    folder = node_folder(world, npm)
    done = world.octave("install", "./mcp-notes", "-q")
    assert done.told == (0, "installed notes 0.1.0 (1 tool)\n", "")
    assert 'package = "folder:../cwd/mcp-notes"' in world.manifest
    assert str(world.root) not in world.lockfile
    assert world.octave("list", "--json").json[0]["kind"] == "folder"
    shutil.rmtree(folder)
    assert world.call("notes", "said").stdout == "dep-one\n"
    assert world.octave("audit").code == 0
    (installed,) = (world.home / "servers" / "notes").iterdir()
    inside = {path.name for path in (installed / "node_modules" / "@me" / "notes").iterdir()}
    assert inside == {"package.json", "server.js"}, "no more than npm would publish, no script ran"
    asked = [path for path in npm.asked if "notes" in path]
    assert asked == [], "its name is told to no registry"


@needs_npm
def test_its_dependencies_are_as_old_as_asked_and_their_scripts_run_if_named(
    world: World, npm: NpmRegistry
) -> None:
    node_folder(
        world,
        npm,
        dependencies={"dep": "^1.0.0", "made": "*"},
        bin={"a": "./server.js", "b": "./server.js"},
    )
    npm.offer("made", scripts={"postinstall": "echo x > made"}, published=days_ago(1))
    several = world.octave("install", "./mcp-notes", "-q")
    assert several.code == 4
    assert "choose one with `--bin a`" in several.stderr
    words = ("install", "./mcp-notes", "--bin", "a", "--allow-scripts", "made", "-q")
    young = world.octave(*words, "--min-release-age", "7d")
    assert (young.code, "that is 7d old" in young.stderr) == (4, True), young.stderr
    assert world.octave(*words, "--check").code == 0
    assert list(world.home.glob("servers/notes/*/node_modules/made/made"))
    # What has no script any more is no reason to refuse an update, or a lock.
    npm.offer("made", "2.0.0", published=days_ago(1))
    done = world.octave("update", "-y")
    assert done.code == 0, done.stderr
    assert "runs no code of `made` while it is installed" in done.stderr
    assert world.octave("lock", "--check").code == 0


@needs_npm
def test_what_changed_in_the_folder_comes_with_update_and_with_install(
    world: World, npm: NpmRegistry
) -> None:
    node_folder(world, npm)
    world.octave("install", "./mcp-notes", "-q")
    back = world.octave("rollback", "notes", "--json")
    assert (
        back.error["hint"] == "put the files in `../cwd/mcp-notes` back, then octave update notes"
    )
    assert world.octave("install", "notes", "-e", "MODE=x", "-q").stdout.startswith("present notes")
    node_folder(world, npm, "two")
    assert world.octave("install", "-q").stdout.startswith("present notes")
    assert world.octave("install", "notes", "-q").stdout.startswith("present notes")
    told = world.octave("install", "./mcp-notes", "--dry-run").stdout
    assert told.startswith("would install notes"), "it is other than what is locked"
    assert world.call("notes", "said").stdout == "dep-one\n"
    done = world.octave("update", "-y", "-q")
    assert done.code == 0
    assert world.call("notes", "said").stdout == "dep-two\n"
    assert world.octave("rollback", "notes").code == 0
    assert world.call("notes", "said").stdout == "dep-one\n"
    node_folder(world, npm, "three", version="0.2.0")
    assert world.octave("outdated", "--json").json[0]["latest"] == "0.2.0"
    assert world.octave("install", "./mcp-notes", "-q").code == 0
    assert world.call("notes", "said").stdout == "dep-three\n"


@needs_npm
def test_the_same_files_are_the_same_bytes_and_others_are_refused(
    world: World, npm: NpmRegistry
) -> None:
    folder = node_folder(world, npm)
    world.octave("install", "./mcp-notes", "-q")
    locked = world.lockfile
    shutil.rmtree(world.home / "servers")
    for path in (world.home / "cache" / "npm-tarballs").glob("*/*"):
        path.write_bytes(b"damaged")
    (folder / "server.js").chmod(0o700)
    done = world.octave("install", "--locked", "-q")
    assert (done.code, world.lockfile) == (0, locked)
    for path in (world.home / "servers", world.home / "cache"):
        shutil.rmtree(path)
    node_folder(world, npm, "other")
    done = world.octave("install", "--locked")
    assert done.code == 7
    assert "is not what was locked: its files have changed since" in done.stderr
    assert "hint: octave update notes" in done.stderr
    assert world.lockfile == locked


def test_a_folder_of_data_that_nobody_left_out_is_not_read_into_memory(tmp_path: Path) -> None:
    archive = tmp_path / "x.tgz"
    archive.write_bytes(package_tarball("x", files={"data": "x" * 5000}))
    assert dict(files_of(archive, 6000))["package/data"][1] == b"x" * 5000
    with pytest.raises(InstallFailed, match="larger than"):
        dict(files_of(archive, 5000))


@needs_npm
@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({"bin": "./dist/index.js"}, "is started by `dist/index.js`, which is not among the files"),
        ({"bin": None}, "has no executable"),
        ({"version": "new"}, "has no usable `version`"),
        ({"name": None}, "has no usable `name`"),
        ({"dependencies": {"dep": "file:../x"}}, "wants `dep` from `file:../x`, which is no reg"),
        ({"dependencies": {"dep": "me/dep"}}, "wants `dep` from `me/dep`"),
        ({"bundleDependencies": ["dep"]}, "bundles dependencies"),
    ],
)
def test_a_folder_that_cannot_be_packed_says_why(
    world: World, npm: NpmRegistry, manifest: dict[str, Any], said: str
) -> None:
    node_folder(world, npm, **manifest)
    done = world.octave("install", "./mcp-notes", "-q")
    assert done.code == 1
    assert said in done.stderr
    assert world.installed() == []


def test_a_folder_of_python_is_built_locked_and_runs_apart_from_it(world: World) -> None:
    folder = python_folder(world)
    done = world.octave("install", ".", cwd=folder)
    assert (done.code, done.stdout) == (0, "installed hi 0.2.0 (3 tools)\n")
    assert "  RUNS the build code of: folder:../cwd/hi\n" in done.stderr
    assert str(world.root) not in world.lockfile
    shutil.rmtree(world.home / "servers")
    (kept,) = (world.home / "cache" / "wheels").glob("*/*.whl")
    kept.write_bytes(b"damaged")
    assert world.octave("install", "--locked", "-q").code == 0
    shutil.rmtree(world.home / "servers")
    kept.unlink()
    assert world.octave("install", "--locked", "-q").code == 0
    shutil.rmtree(world.home / "servers")
    shutil.rmtree(world.home / "cache")
    assert world.octave("install", "--locked", "-q").code == 0, "built anew, to the same bytes"
    assert world.octave("audit").code == 0
    main = folder / "src" / "__init__.py"
    main.write_text(main.read_text(encoding="utf-8") + "# new\n", encoding="utf-8")
    assert world.octave("install", "--locked", "-q").code == 0
    assert world.octave("update", "-y", "--json").json["results"][0]["status"] == "updated"
    folder.chmod(0)
    told = octave(world, "update", "hi", has_rights=False)
    assert (told.code, "cannot be read: Permission denied" in told.stderr) == (1, True)
    folder.chmod(0o700)
    shutil.rmtree(folder)
    assert world.call("hi", "echo", "text=x").code == 0
    done = world.octave("update", "hi")
    assert (done.code, "is not there" in done.stderr) == (1, True)
    for path in (world.home / "servers", world.home / "cache"):
        shutil.rmtree(path)
    told = octave(world, "install", "--locked")
    assert (told.code, "is not there" in told.stderr) == (1, True)


def test_a_dry_run_says_what_would_be_built_and_builds_nothing(world: World) -> None:
    folder = python_folder(world)
    with (folder / "backend.py").open("a", encoding="utf-8") as backend:
        backend.write("pathlib.Path(__file__).with_name('ran').touch()\n")
    (row,) = world.octave("install", ".", "--dry-run", "--json", cwd=folder).json["results"]
    plan = row["plan"]
    assert (row["status"], row["version"], plan["integrity"]) == ("would-install", "0.2.0", None)
    assert plan["builds"] == ["folder:../cwd/hi"]

    text = PROJECT.replace("[build", 'dependencies = ["story-dep"]\n[build')
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    shown = world.octave("install", ".", "--dry-run", cwd=folder).stdout
    assert "would install hi 0.2.0\n" in shown
    assert "brings: 2 packages at least; all of it is known once its build code was run" in shown
    (folder / "pyproject.toml").write_text(text.replace("version =", "v ="), encoding="utf-8")
    assert "(version unknown)" in world.octave("install", ".", "--dry-run", cwd=folder).stdout
    outside = text.replace("story-hi", str(world.root / "outside"))
    (folder / "pyproject.toml").write_text(outside, encoding="utf-8")
    assert world.octave("install", ".", "--dry-run", cwd=folder).code == 0
    assert not list(world.root.glob("outside*"))
    assert not (folder / "ran").exists()


def test_whoever_declines_has_had_no_build_code_run(world: World) -> None:
    folder = python_folder(world)
    with (folder / "backend.py").open("a", encoding="utf-8") as backend:
        backend.write("pathlib.Path(__file__).with_name('ran').touch()\n")
    question = "Install `hi`? [Y/n]: "
    code, shown = on_terminal(world.environ, folder, [(question, "n")], "install", ".")
    assert (code, "RUNS the build code of: folder:../cwd/hi" in shown) == (7, True)
    assert not (folder / "ran").exists()
    code, shown = on_terminal(world.environ, folder, [(question, "")], "install", ".")
    assert (code, (folder / "ran").exists()) == (0, True), shown
    assert world.call("hi", "echo", "text=x").code == 0


@pytest.mark.parametrize("words", [("./nowhere",), ("/dev/null",), ("./file",)])
def test_what_is_no_folder_is_no_request(world: World, words: tuple[str, ...]) -> None:
    (world.cwd / "file").write_text("", encoding="utf-8")
    done = world.octave("install", *words)
    assert done.code == 2
    assert f"`{words[0]}` is no folder" in done.stderr


def test_nothing_of_a_project_that_is_not_trusted_is_built(world: World) -> None:
    project = world.cwd / "project"
    (project / "srv").mkdir(parents=True)
    ran = world.root / "ran"
    (project / "srv/pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n',
        encoding="utf-8",
    )
    (project / "srv/own.py").write_text(f"open({str(ran)!r}, 'w')", encoding="utf-8")
    text = '[servers.a]\npackage = "folder:./srv"\n[servers.b]\npackage = "pypi:x"\n'
    allows = 'allow_build = ["x"]\n'
    (project / "octave.toml").write_text(text + allows, encoding="utf-8")
    done = world.octave("lock", cwd=project)
    assert (done.code, done.stderr.count("is not trusted yet"), ran.exists()) == (7, 2, False)
    assert world.octave("trust", "-y", cwd=project).code == 0
    world.octave("lock", cwd=project)
    assert ran.exists()


def test_a_folder_without_a_package_points_to_add(world: World) -> None:
    # What it is called is nobody's business: it imitates no package.
    (world.cwd / "github").mkdir()
    done = world.octave("install", "./github")
    assert done.code == 1
    assert "octave add NAME -- COMMAND" in done.stderr
