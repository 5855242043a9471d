"""What differs between two dependency graphs."""

from typing import Any

from octave.packages.lockfile import Pin
from octave.packages.package_changes import package_changes, republished


def pin(**versions: tuple[str, list[str]]) -> Pin:
    rows: list[Any] = [
        {"name": name, "version": version, "hashes": [f"sha256:{each * 64}" for each in hashes]}
        for name, (version, hashes) in versions.items()
    ]
    return Pin("srv", "pypi:srv@*", "pypi", "srv", "1", "", graph=tuple(rows))


def test_other_contents_under_the_same_version_are_found_in_dependencies_too() -> None:
    before = pin(srv=("1", ["a"]), dep=("2", ["b", "c"]), old=("1", ["d"]))
    after = pin(srv=("1", ["a"]), dep=("2", ["e"]), old=("2", ["f"]))
    assert republished(before, after) == ["dep 2"]
    assert dict(package_changes(before, after).changed) == {"old": ("1", "2")}


def test_files_that_are_added_to_a_version_or_taken_from_it_are_no_other_contents() -> None:
    before = pin(srv=("1", ["a", "b"]))
    assert republished(before, pin(srv=("1", ["a", "b", "c"]))) == []
    assert republished(before, pin(srv=("1", ["b"]))) == []


def test_a_package_of_the_same_name_elsewhere_is_another_one() -> None:
    elsewhere = Pin(
        "srv",
        "npm:srv@*",
        "npm",
        "srv",
        "1",
        "",
        graph=({"path": "node_modules/srv", "version": "1", "integrity": f"sha512-{'A' * 86}=="},),
    )
    assert republished(pin(srv=("1", ["a"])), elsewhere) == []


def test_a_dependency_that_changed_under_the_same_version_of_the_server_is_told() -> None:
    before, after = pin(srv=("1", ["a"]), dep=("1", ["b"])), pin(srv=("1", ["a"]), new=("1", ["c"]))
    changes = package_changes(before, after)
    assert (dict(changes.added), dict(changes.removed)) == ({"new": "1"}, {"dep": "1"})
