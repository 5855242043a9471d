"""Executables of packages: which names and paths are linked, and what never is."""

import json
from pathlib import Path
from typing import Any

import pytest

from octave.packages.ecosystems.npm_bins import link


def package(modules: Path, name: str, script: bytes = b"#!/bin/sh\n", **manifest: Any) -> Path:
    folder = modules / name
    folder.mkdir(parents=True)
    (folder / "run.js").write_bytes(script)
    (folder / "run.js").chmod(0o644)
    (folder / "package.json").write_text(json.dumps(manifest), encoding="utf-8")
    link(folder, manifest)
    return folder


def links(modules: Path) -> dict[str, str]:
    return {path.name: str(path.readlink()) for path in modules.glob(".bin/*")}


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    return tmp_path / "node_modules"


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("run.js", "tool"),
        ("./run.js", "tool"),
        ({"other": "run.js"}, "other"),
        ({"../../up": "run.js"}, "up"),
        ({"a:b\\c": "run.js"}, "c"),
        ({"other": "../../run.js"}, "other"),
        ({"other": ".\\run.js"}, "other"),
        (["run.js"], "run.js"),
    ],
)
def test_names_and_paths_are_read_as_npm_reads_them(modules, named, expected):
    folder = package(modules, "@s/tool", bin=named)
    assert links(modules) == {expected: "../@s/tool/run.js"}
    assert (folder / "run.js").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "named", [None, "", {}, {"": "run.js"}, {"..": "run.js"}, {"x": 1}, {"x": "absent"}, {"x": "."}]
)
def test_what_names_no_file_is_not_linked(modules, named):
    folder = package(modules, "tool", bin=named)
    assert links(modules) == {}
    assert (folder / "run.js").stat().st_mode & 0o777 == 0o644


def test_a_link_that_leads_out_of_the_package_is_neither_linked_nor_changed(modules, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"#!/bin/sh\r\n")
    outside.chmod(0o600)
    (modules / "tool").mkdir(parents=True)
    (modules / "tool" / "out").symlink_to(outside)
    link(modules / "tool", {"bin": "out"})
    assert links(modules) == {}
    assert outside.stat().st_mode & 0o777 == 0o600


def test_a_name_stays_with_the_first_package(modules):
    package(modules, "a", bin={"x": "run.js"})
    second = package(modules, "b", bin={"x": "run.js"})
    assert links(modules) == {"x": "../a/run.js"}
    assert (second / "run.js").stat().st_mode & 0o777 == 0o644


def test_a_first_line_of_windows_is_mended_and_no_other(modules):
    script = b"#!/usr/bin/env node\r\nfirst\r\n"
    folder = package(modules, "tool", script=script, bin="run.js")
    assert (folder / "run.js").read_bytes() == b"#!/usr/bin/env node\nfirst\r\n"
