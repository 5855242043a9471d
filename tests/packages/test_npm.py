"""npm servers: names and ranges, versions, executables, what npm says, and the real thing."""

import _socket
import json
import os
import socket
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octave.errors import (
    Ambiguous,
    InstallFailed,
    IntegrityFailed,
    OctaveError,
    PackageNotFound,
    UsageError,
    VersionNotFound,
)
from octave.home import Home
from octave.packages.ecosystems.base import Bench, Wanted
from octave.packages.ecosystems.npm import Npm, choose_entry
from octave.packages.ecosystems.npm_versions import (
    check_wanted,
    find_version,
    intersection,
    is_published,
    overrides_of,
    required_node,
)
from octave.packages.lockfile import Pin
from tests.packages.scripted_npm import npm_that

SHA = "sha512-" + "A" * 86 + "=="


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    home = Home(tmp_path / "home")
    home.prepare()
    return Bench(home, {"PATH": os.environ["PATH"], "HOME": str(tmp_path)})


@pytest.mark.parametrize(
    "package",
    [
        *("", "-x", "--global", "../x", "a b", "a\0b", "a\nb", "https://h/x", "git+ssh://h/x"),
        *("a/b", "@scope", "@scope/", "file:x", "x.tgz", "x@1", "@s/.x"),
    ],
)
def test_names_that_npm_would_read_as_something_else_are_refused(package):
    with pytest.raises(UsageError, match="not the name of an npm package"):
        check_wanted(Wanted(package))


@pytest.mark.parametrize(
    "version_range",
    [
        "-1",
        "--x",
        "git+ssh://h/x",
        "file:..",
        "npm:other@1",
        "../x",
        "1\n2",
        "x.tgz",
        ".5",
        "1.2.3.4",
    ],
)
def test_ranges_that_are_none_are_refused(version_range):
    with pytest.raises(UsageError, match="not an npm version range"):
        check_wanted(Wanted("a", version_range))


@pytest.mark.parametrize(
    "version_range",
    ["*", "latest", "next", "1.2.3", "^1.2", "~0.1", ">=1 <2 || 3.x", "1.0.0-beta.1", "1 - 2"],
)
def test_npm_ranges_and_tags_are_accepted(version_range):
    check_wanted(Wanted("@scope/Some_thing.js", version_range))


def test_constraints_become_overrides():
    constraints = ("zod<4", "@s/x ^1.2", "y@2.x", "z>=3,<4")
    assert overrides_of(constraints) == {"zod": "<4", "@s/x": "^1.2", "y": "2.x", "z": ">=3 <4"}


@pytest.mark.parametrize("text", ["zod", "zod@", "zod@file:x", "<4", "zod<4; rm"])
def test_a_constraint_without_a_range_is_refused(text):
    with pytest.raises(UsageError, match="not a constraint"):
        overrides_of([text])


@pytest.mark.parametrize(
    ("package", "binaries", "executable", "expected"),
    [
        ("@s/pkg", "./dist/cli.js", None, "dist/cli.js"),
        ("@s/pkg", "dist/cli.js", "pkg", "dist/cli.js"),
        ("pkg", {"other": "a.js"}, None, "a.js"),
        ("@s/pkg", {"tool": "a.js", "pkg": "b.js"}, None, "b.js"),
        ("pkg", {"tool": "a.js", "x-mcp": "b.js", "mcp": "c.js"}, None, "b.js"),
        ("pkg", {"tool": "a.js", "pkg": "b.js"}, "tool", "a.js"),
    ],
)
def test_the_executable_that_is_plainly_meant_is_found(package, binaries, executable, expected):
    assert choose_entry(package, binaries, executable) == f"node_modules/{package}/{expected}"


def test_several_executables_are_listed():
    with pytest.raises(Ambiguous) as caught:
        choose_entry("pkg", {"b": "b.js", "a": "a.js"}, None)
    assert caught.value.details == {"candidates": ["a", "b"]}
    assert caught.value.hint is not None
    assert "--bin a" in caught.value.hint


@pytest.mark.parametrize("binaries", [None, {}, [], {"x": ""}])
def test_a_package_without_executable_is_no_server(binaries):
    with pytest.raises(InstallFailed, match="has no executable"):
        choose_entry("pkg", binaries, None)


def test_an_unknown_executable_is_answered_with_the_known_ones():
    with pytest.raises(InstallFailed, match="has no executable `c`, it has `a`, `b`"):
        choose_entry("pkg", {"a": "a.js", "b": "b.js"}, "c")


@pytest.mark.parametrize("path", ["../x.js", "/etc/x.js", "a/../../x.js", "."])
def test_an_executable_outside_the_package_is_refused(path):
    with pytest.raises(InstallFailed, match="outside"):
        choose_entry("pkg", {"pkg": path}, None)


def test_the_entry_of_an_installed_package_is_read_from_its_package_json(tmp_path):
    folder = tmp_path / "node_modules/@s/pkg"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text('\ufeff{"bin": "cli.js"}', encoding="utf-8")
    assert Npm().find_entry("@s/pkg", None, tmp_path) == "node_modules/@s/pkg/cli.js"
    with pytest.raises(InstallFailed, match=r"no readable package\.json"):
        Npm().find_entry("absent", None, tmp_path)


REGISTRY = """
asked = words[1]
versions = ["1.0.0", "1.9.0", "1.10.0", "2.0.0", "3.0.0-rc.1"]
tags = {"latest": "1.10.0"}
fitting = {"pkg@latest": ["1.10.0"], "pkg@^1": ["1.0.0", "1.9.0", "1.10.0"],
           "pkg@>=2": ["2.0.0", "3.0.0-rc.1"], "pkg@3.0.0-rc.1": ["3.0.0-rc.1"]}
if asked == "pkg":
    print(json.dumps({"versions": versions, "dist-tags": tags}))
elif asked in fitting:
    found = [{"name": "pkg", "version": v} for v in fitting[asked]]
    for one in found:
        if one["version"] == "1.10.0" and asked != "pkg@latest":
            one["deprecated"] = "broken"
    print(json.dumps(found if len(found) > 1 else found[0]))
else:
    missing = not asked.startswith("pkg@")
    print(json.dumps({"error": {"code": "E404",
          "summary": "Not Found" if missing else "No match found for version 9"}}))
    print("npm error code E404", file=sys.stderr)
    sys.exit(1)
"""


@pytest.mark.parametrize(
    ("version_range", "expected"),
    [
        ("*", "1.10.0"),
        ("latest", "1.10.0"),
        ("^1", "1.9.0"),
        (">=2", "2.0.0"),
        ("^3", "3.0.0-rc.1"),
    ],
    ids=["newest", "latest", "not a deprecated one", "stable first", "nothing but pre-releases"],
)
def test_the_meant_version_is_found(tmp_path, bench, version_range, expected):
    node = npm_that(tmp_path, REGISTRY)
    found = find_version(Wanted("pkg", version_range), node, tmp_path, bench)
    assert found["version"] == expected


@pytest.mark.parametrize(
    ("package", "wanted", "expected"),
    [
        ("pkg", "^1", True),
        ("pkg", "^9", False),
        ("absent", "1.0.0", False),
        ("alias", "npm:pkg@^1", True),
        ("alias", "npm:absent@^1", False),
        ("pkg", "git+ssh://h/x", False),
        ("pkg", "file:../x", False),
        ("../pkg", "^1", False),
    ],
)
def test_what_a_package_json_wants_is_published_or_not(tmp_path, bench, package, wanted, expected):
    node = npm_that(tmp_path, REGISTRY)
    assert is_published(package, wanted, node, tmp_path, bench) is expected


def test_an_unknown_version_is_answered_with_the_newest(tmp_path, bench):
    with pytest.raises(VersionNotFound) as caught:
        find_version(Wanted("pkg", "9"), npm_that(tmp_path, REGISTRY), tmp_path, bench)
    assert caught.value.details["newest"] == ["3.0.0-rc.1", "2.0.0", "1.10.0", "1.9.0", "1.0.0"]
    assert caught.value.hint == "octave install npm:pkg@1.10.0"


def test_an_unknown_package_is_not_an_unknown_version(tmp_path, bench):
    with pytest.raises(PackageNotFound, match="no npm package `absent`"):
        find_version(Wanted("absent"), npm_that(tmp_path, REGISTRY), tmp_path, bench)


def test_what_package_and_registry_ask_of_node_must_both_hold():
    assert required_node({"engines": {"node": ">=18"}}, None) == (">=18",)
    assert required_node({}, ">=22") == (">=22",)
    assert required_node({"engines": {"node": ">=18"}}, ">=18") == (">=18",)
    assert required_node({"engines": {"node": "^18 || >=20"}}, ">=22") == ("^18 >=22 || >=20 >=22",)
    assert required_node({"engines": ["node >= 18"]}, None) == ()
    assert required_node({"engines": {"node": "*"}}, None) == ()
    assert intersection("18 - 20", ">=19") == ">=18 <=20 >=19"


def pin_of(**changes: Any) -> Pin:
    graph = ({"path": "node_modules/pkg", "version": "1.0.0", "integrity": SHA},)
    values = {"graph": graph, "integrity": SHA, "entry": "node_modules/pkg/x.js", **changes}
    return Pin("x", "npm:pkg@*", "npm", "pkg", "1.0.0", **values)


@pytest.mark.parametrize(
    "changes",
    [
        {"entry": "node_modules/other/x.js"},
        {"entry": "node_modules/pkg/../../../x.js"},
        {"entry": "/etc/x.js"},
        {"integrity": SHA.replace("A", "B")},
        {"graph": ()},
    ],
)
def test_a_pin_that_does_not_hold_together_is_refused_first(tmp_path, bench, changes):
    with pytest.raises(IntegrityFailed):
        Npm().install(pin_of(**changes), tmp_path, bench)


@pytest.fixture
def open_network(loopback_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", _socket.socket.connect)


def resolved(bench: Bench, wanted: Wanted, staging: Path) -> Pin:
    staging.mkdir()
    found = Npm().resolve(wanted, staging, bench)
    return Pin(
        name="x",
        request=f"npm:{wanted.package}@*",
        kind="npm",
        package=wanted.package,
        version=found.version,
        integrity=found.integrity,
        graph=found.graph,
        entry=found.entry,
        requires=found.requires,
        toolchain=found.toolchain,
    )


@pytest.fixture
def real_bench(tmp_path: Path, open_network: None) -> Bench:
    home = Home(tmp_path / "home")
    home.prepare()
    return Bench(home, dict(os.environ))


@pytest.mark.e2e
@pytest.mark.parametrize(
    "package",
    [
        "@modelcontextprotocol/server-everything",
        pytest.param("@modelcontextprotocol/server-memory", marks=pytest.mark.campaign),
        pytest.param("kubernetes-mcp-server", marks=pytest.mark.campaign),
        pytest.param("slack-mcp-server", marks=pytest.mark.campaign),
    ],
)
def test_a_real_server_is_locked_and_installed_twice_the_same(tmp_path, real_bench, package):
    pin = resolved(real_bench, Wanted(package), tmp_path / "resolve")
    assert "://" not in json.dumps(pin.graph)
    trees = []
    for bench in (real_bench, Bench(real_bench.home, real_bench.environ, offline=True)):
        target = tmp_path / f"offline-{bench.offline}"
        target.mkdir()
        Npm().install(pin, target, bench)
        assert Npm().find_entry(package, None, target) == pin.entry
        trees.append(tree(target))
        links = {path for path, (mode, _) in trees[-1].items() if not mode}
        assert all("node_modules/.bin/" in path for path in links)
        assert {mode for mode, _ in trees[-1].values()} <= {0, 0o644, 0o755}
    assert trees[0] == trees[1]


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and content (of a link: where it leads) of all below `folder`, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if path.is_symlink():
            found[str(path.relative_to(folder))] = (0, str(path.readlink()).encode())
        else:
            content = path.read_bytes() if path.is_file() else b"folder"
            found[str(path.relative_to(folder))] = (stat.S_IMODE(status.st_mode), content)
    return found


@pytest.mark.e2e
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "package",
    [
        "@modelcontextprotocol/server-everything",
        pytest.param("@modelcontextprotocol/server-filesystem", marks=pytest.mark.campaign),
        "esbuild",
        pytest.param("npm", marks=pytest.mark.campaign),
    ],
    ids=["everything", "filesystem", "platform variants", "bundled dependencies"],
)
def test_the_tree_is_to_the_byte_what_npm_ci_makes(tmp_path, real_bench, package):
    pin = resolved(real_bench, Wanted(package), tmp_path / "resolve")
    own = tmp_path / "own"
    own.mkdir()
    told: list[str] = []
    Npm().install(pin, own, replace(real_bench, detail=told.append))
    assert not told
    words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    before = os.umask(0o022)
    try:
        subprocess.run(words, cwd=tmp_path / "resolve", check=True, capture_output=True)
    finally:
        os.umask(before)
    modules = tmp_path / "resolve" / "node_modules"
    (modules / ".package-lock.json").unlink()
    assert tree(own / "node_modules") == tree(modules)


@pytest.mark.e2e
def test_npm_makes_the_same_tree_from_the_rows(tmp_path, real_bench):
    pin = resolved(real_bench, Wanted("slack-mcp-server"), tmp_path / "resolve")
    # What Octave does not do itself; the hashes hold all the same.
    environ = {**real_bench.environ, "npm_config_strict_ssl": "false"}
    told: list[str] = []
    for name, variables in {"npm": environ, "own": real_bench.environ}.items():
        (tmp_path / name).mkdir()
        bench = Bench(real_bench.home, variables, detail=told.append)
        Npm().install(pin, tmp_path / name, bench)
    assert told == [
        "npm installs `slack-mcp-server`: the configuration changes how TLS is checked."
    ]
    assert tree(tmp_path / "npm") == tree(tmp_path / "own")


@pytest.mark.e2e
def test_a_changed_character_in_an_integrity_is_refused(tmp_path, real_bench):
    pin = resolved(real_bench, Wanted("slack-mcp-server"), tmp_path / "resolve")
    broken = pin.integrity[:20] + ("A" if pin.integrity[20] != "A" else "B") + pin.integrity[21:]
    graph = json.loads(json.dumps(pin.graph).replace(pin.integrity, broken))
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(IntegrityFailed) as caught:
        Npm().install(pin_with(pin, graph, broken), target, real_bench)
    assert caught.value.details == {"expected": broken, "got": pin.integrity}


def pin_with(pin: Pin, graph: list[dict[str, object]], integrity: str) -> Pin:
    return Pin(
        "x", pin.request, "npm", pin.package, pin.version, integrity, tuple(graph), entry=pin.entry
    )


@pytest.mark.e2e
def test_a_registry_that_is_not_there_is_named_within_seconds(tmp_path, real_bench):
    environ = {**real_bench.environ, "npm_config_registry": "http://127.0.0.1:1/"}
    with pytest.raises(OctaveError) as caught:
        Npm().resolve(Wanted("x"), tmp_path, Bench(real_bench.home, environ))
    assert caught.value.code == "registry_unreachable"
