"""Rows of npm servers: from package-lock and back, and which of them belong on a platform."""

import json
from dataclasses import replace

import pytest

from octave.errors import InstallFailed, IntegrityFailed
from octave.home import Home
from octave.packages.ecosystems.base import Bench
from octave.packages.ecosystems.npm import Npm
from octave.packages.ecosystems.npm_graph import (
    Platform,
    check_rows,
    locate,
    lock_from_rows,
    rows_from_lock,
    select,
    suits,
)
from octave.packages.graph_rows import row_name
from octave.packages.lockfile import Pin

SHA = "sha512-" + "A" * 86 + "=="
LINUX = Platform("linux", "x64", "glibc")


def lock(**packages):
    entries = {
        path: {"version": "1.0.0", "integrity": SHA, **entry} for path, entry in packages.items()
    }
    return {"lockfileVersion": 3, "packages": {"": {"dependencies": {}}, **entries}}


def graph(**packages):
    paths = {
        "node_modules/" + "/node_modules/".join(key.split("__")): packages[key] for key in packages
    }
    rows = rows_from_lock(lock(**paths), "root")
    return {str(row["path"]): row for row in rows}


def paths_of(by_path, platform=LINUX):
    return [
        str(row["path"]).removeprefix("node_modules/") for row in select(by_path, "root", platform)
    ]


def test_rows_keep_what_decides_the_tree_and_no_address():
    entry = {
        "license": "MIT",
        "funding": {"url": "https://example.com"},
        "engines": {"node": ">=18", "npm": ">=9"},
        "bin": {"x": "x.js"},
        "dependencies": {"b": "^1", "a": "^2"},
        "peerDependenciesMeta": {"p": {"optional": True}, "q": {}},
        "os": ["linux"],
        "hasInstallScript": True,
    }
    rows = rows_from_lock(
        lock(**{"node_modules/root": entry, "node_modules/a": {"bin": {"a": "a"}}}), "root"
    )
    assert "example" not in json.dumps(rows)
    assert rows == (
        {"path": "node_modules/a", "version": "1.0.0", "integrity": SHA},
        {
            "path": "node_modules/root",
            "version": "1.0.0",
            "integrity": SHA,
            "dependencies": {"a": "^2", "b": "^1"},
            "hasInstallScript": True,
            "os": ["linux"],
            "engines": {"node": ">=18"},
            "peerDependenciesMeta": {"p": {"optional": True}},
            "bin": {"x": "x.js"},
        },
    )


@pytest.mark.parametrize(
    "entry",
    [
        {"resolved": "git+ssh://git@example.com/x.git#1"},
        {"resolved": "file:../x"},
        {"link": True},
        {"integrity": ""},
        {"integrity": "sha1-kvU2iPKwJrZcBOBxQ9w7vGlbVm4="},
        {"integrity": "", "inBundle": True},
    ],
    ids=["git", "file", "link", "no hash", "weak hash", "bundled in nothing"],
)
def test_what_cannot_be_verified_cannot_be_locked(entry):
    with pytest.raises(InstallFailed, match="cannot be locked"):
        rows_from_lock(lock(**{"node_modules/root": {}, "node_modules/x": entry}), "root")


def test_another_lock_format_is_refused():
    with pytest.raises(InstallFailed, match="version `1`"):
        rows_from_lock({"lockfileVersion": 1, "dependencies": {}}, "root")


def test_a_bundled_package_needs_no_hash_of_its_own():
    rows = graph(root={}, root__b={"inBundle": True, "integrity": ""})
    assert "integrity" not in rows["node_modules/root/node_modules/b"]
    assert check_rows(rows.values(), "root", SHA) == rows


def test_rows_become_the_same_lock_again():
    rows = graph(
        root={"dependencies": {"a": "^1"}, "peer": True},
        root__a={"name": "alias-of", "optional": True},
    )
    manifest, again = lock_from_rows(rows.values(), "root", "1.0.0", {"zod": "<4"})
    assert manifest == {
        "private": True,
        "dependencies": {"root": "1.0.0"},
        "overrides": {"zod": "<4"},
    }
    assert rows_from_lock(again, "root") == tuple(rows.values())


def test_a_rebuilt_lock_asks_for_no_optional_package_without_a_row():
    names = {"there": "1", "unpublished": "1"}
    rows = graph(root={"optionalDependencies": names, "dependencies": names}, there={})
    _, again = lock_from_rows(rows.values(), "root", "1.0.0", {})
    entry = again["packages"]["node_modules/root"]
    assert entry["optionalDependencies"] == entry["dependencies"] == {"there": "1"}


@pytest.mark.parametrize(
    "change",
    [
        {"path": "node_modules/../../etc"},
        {"path": "elsewhere/a"},
        {"path": "node_modules/.bin"},
        {"version": "1.0.0/../../x"},
        {"integrity": "sha512-short"},
        {"integrity": ""},
        {"name": "../x"},
        {"inBundle": True, "integrity": ""},
    ],
)
def test_a_row_that_leads_elsewhere_or_cannot_be_verified_is_refused(change):
    rows = [{"path": "node_modules/root", "version": "1.0.0", "integrity": SHA}]
    bad = {"path": "node_modules/a", "version": "1.0.0", "integrity": SHA, **change}
    with pytest.raises(IntegrityFailed, match="not sound"):
        check_rows([*rows, bad], "root", SHA)


def test_the_graph_must_hold_the_package_with_the_pins_hash():
    rows = list(graph(root={}).values())
    with pytest.raises(IntegrityFailed):
        check_rows(rows, "other", SHA)
    with pytest.raises(IntegrityFailed):
        check_rows(rows, "root", SHA.replace("A", "B"))


def test_names_are_found_as_node_finds_them():
    by_path = graph(root={}, a={}, a__b={}, b={}, a__b__c={})
    assert locate(by_path, "node_modules/a", "b") == "node_modules/a/node_modules/b"
    assert locate(by_path, "node_modules/a/node_modules/b", "b") == "node_modules/a/node_modules/b"
    assert locate(by_path, "node_modules/root", "b") == "node_modules/b"
    assert locate(by_path, "node_modules/a/node_modules/b", "root") == "node_modules/root"
    assert locate(by_path, "node_modules/root", "c") is None


def test_an_alias_has_the_name_of_its_entry():
    assert row_name({"path": "node_modules/x/node_modules/@s/alias"}) == "@s/alias"
    assert row_name({"path": "node_modules/alias", "name": "real"}) == "real"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, True),
        ({"os": ["linux", "darwin"]}, True),
        ({"os": ["darwin"]}, False),
        ({"os": ["!win32"]}, True),
        ({"os": ["!linux"]}, False),
        ({"os": ["any"]}, True),
        ({"cpu": ["arm64"]}, False),
        ({"os": ["linux"], "cpu": ["x64"], "libc": ["musl"]}, False),
        ({"libc": ["glibc"]}, True),
    ],
)
def test_platform_lists_mean_what_npm_means(row, expected):
    assert suits(row, LINUX) is expected


def test_other_platforms_variants_stay_out_with_what_only_they_need():
    by_path = graph(
        root={"optionalDependencies": {"lin": "1", "mac": "1"}, "dependencies": {"both": "1"}},
        lin={"os": ["linux"], "optional": True, "dependencies": {"both": "1"}},
        mac={"os": ["darwin"], "optional": True, "dependencies": {"only-mac": "1"}},
        **{"only-mac": {"optional": True}, "both": {}},
    )
    assert paths_of(by_path) == ["both", "lin", "root"]
    assert paths_of(by_path, Platform("darwin", "arm64")) == ["both", "mac", "only-mac", "root"]


def test_an_optional_package_goes_when_what_it_needs_does_not_run_here():
    by_path = graph(
        root={"optionalDependencies": {"a": "1"}},
        a={"optional": True, "dependencies": {"b": "1"}},
        b={"optional": True, "os": ["darwin"]},
    )
    assert paths_of(by_path) == ["root"]


def test_a_needed_package_for_another_platform_is_named():
    by_path = graph(root={"dependencies": {"a": "1"}}, a={"os": ["darwin"]})
    with pytest.raises(InstallFailed, match="`root` does not run on linux x64: `a`"):
        paths_of(by_path)


def test_a_needed_package_without_a_row_is_a_broken_lock():
    with pytest.raises(IntegrityFailed, match="no row for `a`"):
        paths_of(graph(root={"dependencies": {"a": "1"}}))


def test_optional_packages_and_peers_may_be_missing_and_cycles_end():
    by_path = graph(
        root={"optionalDependencies": {"gone": "1"}, "peerDependencies": {"p": "1", "no": "1"}},
        p={"dependencies": {"root": "1"}},
        unneeded={},
    )
    assert paths_of(by_path) == ["p", "root"]


@pytest.mark.parametrize(
    ("spec", "name", "is_refused"),
    [
        ("npm:strings@^4", "strings", False),
        ("npm:@s/strings", "@s/strings", False),
        ("^4", None, False),
        ("^4", "evil", True),
        ("npm:strings@^4", "evil", True),
        # Of the alias' own name there can be a package too, somebody else's.
        ("npm:strings@^4", None, True),
    ],
)
def test_only_an_alias_has_another_package_in_its_place(spec, name, is_refused):
    told = {"name": name} if name else {}
    rows = graph(root={"dependencies": {"strings-cjs": spec}}, **{"strings-cjs": told}).values()
    if not is_refused:
        assert len(check_rows(rows, "root", SHA)) == 2
        return
    with pytest.raises(IntegrityFailed, match="at `node_modules/strings-cjs`, where `strings"):
        check_rows(rows, "root", SHA)


def test_an_alias_may_serve_those_too_that_want_something_of_that_name():
    rows = graph(
        root={"dependencies": {"react": "npm:compat@^17", "dom": "1"}},
        react={"name": "compat"},
        dom={"peerDependencies": {"react": "^17"}},
    ).values()
    assert len(check_rows(rows, "root", SHA)) == 3


def test_what_only_a_peer_wants_is_that():
    rows = graph(root={"peerDependencies": {"zod": "^3"}}, zod={"name": "evil"}).values()
    with pytest.raises(IntegrityFailed, match="`evil` at `node_modules/zod`, where `zod`"):
        check_rows(rows, "root", SHA)


@pytest.mark.parametrize("entry", ["dep/x.js", "root/node_modules/dep/x.js", "root"])
def test_only_a_file_of_the_package_itself_is_started(tmp_path, entry):
    rows = graph(root={"dependencies": {"dep": "1"}}, root__dep={})
    pin = Pin(
        name="root",
        request="npm:root@*",
        kind="npm",
        package="root",
        version="1.0.0",
        integrity=SHA,
        graph=tuple(rows.values()),
        entry="node_modules/root/x.js",
    )
    bench = Bench(Home(tmp_path), {})
    Npm().check(pin, bench)
    with pytest.raises(IntegrityFailed, match="lies outside `root`"):
        Npm().check(replace(pin, entry=f"node_modules/{entry}"), bench)


def test_another_package_in_the_place_of_the_server_itself_is_refused():
    with pytest.raises(IntegrityFailed, match="does not hold the package it names"):
        check_rows(graph(root={"name": "evil"}).values(), "root", SHA)
