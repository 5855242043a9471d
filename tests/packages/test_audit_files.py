from pathlib import Path

import pytest

from octave.home import Home
from octave.packages import audit_files
from octave.packages.lockfile import Pin
from tests.packages.npm_registry import package_tarball, row, sha512


def test_row_69_without_the_tarballs_a_package_that_is_gone_is_still_found(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    contents = {name: package_tarball(name) for name in ("root", "part")}
    rows = tuple(row(name, content) for name, content in contents.items())
    integrity = sha512(contents["root"])
    pin = Pin("x", "npm:root@*", "npm", "root", "1.0.0", integrity, rows, entry="index.js")
    folder = home.servers / "x" / pin.folder
    for name in contents:
        place = folder / "node_modules" / name
        place.mkdir(parents=True)
        (place / "package.json").write_text("{}", encoding="utf-8")
    with pytest.raises(audit_files.Unverifiable):
        audit_files.differences(home, pin)
    (folder / "node_modules" / "part" / "package.json").unlink()
    assert audit_files.differences(home, pin) == ["`node_modules/part` is missing"]
