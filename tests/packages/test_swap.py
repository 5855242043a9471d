"""A running runtime refuses another version because the manifest was edited meanwhile."""

from dataclasses import replace

import pytest

from octave.errors import ManifestError, NotTrusted, OctaveError, StartFailed
from octave.home import Workspace
from octave.packages import lockfile, manifest, store
from octave.packages.swap import Old, swap
from tests.packages.test_uninstall import home as home
from tests.packages.test_uninstall import installed_in, site_of
from tests.packages.test_uninstall import workspace as workspace


@pytest.mark.parametrize("error", [ManifestError("broken"), NotTrusted("n"), StartFailed("s")])
def test_the_version_before_is_back_though_the_manifest_is_broken(
    workspace: Workspace, error: OctaveError
) -> None:
    installed_in(workspace, version="1.0")
    before, pin = workspace.lockfile.read_bytes(), lockfile.read(workspace.lockfile).pins["x"]
    record = store.require(workspace.home, "x", pin.folder)
    installed_in(workspace, version="2.0")
    text = workspace.manifest.read_bytes()

    def swapped(name: str) -> None:
        workspace.manifest.write_bytes(b"[broken")
        raise error

    site = replace(site_of(workspace), swapped=swapped)
    old = Old(pin, record, None, put_back=lambda: manifest.load(workspace.manifest))
    with pytest.raises(type(error)) as raised:
        swap(site, old, "2.0")
    assert "1.0" in raised.value.message
    assert ("did not become ready" in raised.value.message) == isinstance(error, StartFailed)
    assert workspace.manifest.read_bytes() == b"[broken"
    workspace.manifest.write_bytes(text)
    assert workspace.lockfile.read_bytes() == before
