import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from octave.errors import Locked
from octave.home import Workspace
from octave.serve.address import Address
from octave.serve.claim import take_lock
from tests.serve.running import home_workspace, manifest_text

FACTS = {"pid": 1, "url": "http://127.0.0.1:1"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return home_workspace(tmp_path / "h", manifest_text())


class Served:
    """An address that is served, so to speak."""

    def __init__(self, workspace: Workspace) -> None:
        self.address = Address(workspace, {}, take_lock(workspace))
        self.listener = self.address.listen()
        self.address.publish(FACTS, "token")

    def mend(self) -> bool:
        """Whether there is a new listener."""
        listener = self.address.mend()
        if listener is None:
            return False
        self.listener.close()
        self.listener = listener
        return True

    def reached(self) -> bool:
        with socket.socket(socket.AF_UNIX) as link:
            return link.connect_ex(os.fspath(self.address.path)) == 0


@pytest.fixture
def served(workspace: Workspace) -> Iterator[Served]:
    served = Served(workspace)
    yield served
    served.address.give_back()
    served.listener.close()


def test_nothing_is_made_again_while_all_is_there(workspace: Workspace, served: Served) -> None:
    before = {path: path.stat().st_mtime_ns for path in workspace.run.iterdir()}
    assert not served.mend()
    assert {path: path.stat().st_mtime_ns for path in workspace.run.iterdir()} == before


def test_row_39_a_removed_socket_is_made_again(workspace: Workspace, served: Served) -> None:
    served.address.path.unlink()
    assert not served.reached()
    assert served.mend()
    assert served.reached()
    assert stat.S_IMODE(served.address.path.stat().st_mode) == 0o600
    assert not served.mend()


def test_row_39_a_socket_that_something_else_was_put_over_is_made_again(
    workspace: Workspace, served: Served
) -> None:
    served.address.path.unlink()
    served.address.path.write_text("no socket")
    assert served.mend()
    assert served.reached()


@pytest.mark.parametrize("name", ["token", "runtime_file"])
def test_row_39_a_removed_token_or_runtime_json_is_written_again(
    workspace: Workspace, served: Served, name: str
) -> None:
    path: Path = getattr(workspace, name)
    content = path.read_bytes()
    path.unlink()
    assert not served.mend()
    assert path.read_bytes() == content
    assert served.reached()


def test_row_39_a_removed_folder_comes_back_with_the_lock_held(
    workspace: Workspace, served: Served
) -> None:
    shutil.rmtree(workspace.run)
    assert served.mend()
    assert served.reached()
    assert workspace.runtime() == FACTS
    with pytest.raises(Locked):
        take_lock(workspace)
    served.address.give_back()
    take_lock(workspace).release()


def test_row_39_a_short_folder_that_was_cleaned_away_is_made_again(tmp_path: Path) -> None:
    served = Served(home_workspace(tmp_path / ("h" * 100), manifest_text()))
    folder = served.address.path.parent
    shutil.rmtree(folder)
    assert served.mend()
    assert served.reached()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    served.address.give_back()
    served.listener.close()
    assert not folder.exists()


def test_row_39_a_workspace_that_another_runtime_has_by_now_is_left_to_it(
    workspace: Workspace, served: Served
) -> None:
    shutil.rmtree(workspace.run)
    workspace.prepare()
    other = Served(workspace)
    with pytest.raises(Locked):
        served.mend()
    served.address.give_back()
    assert other.reached()
    assert workspace.runtime() == FACTS
    with pytest.raises(Locked):
        take_lock(workspace)
    other.address.give_back()
    other.listener.close()


def test_what_cannot_be_made_now_is_made_later(workspace: Workspace, served: Served) -> None:
    shutil.rmtree(workspace.run)
    workspace.run.write_text("in the way")
    with pytest.raises(OSError, match="not a folder"):
        served.mend()
    workspace.run.unlink()
    assert served.mend()
    assert served.reached()


def test_given_back_nothing_is_left_but_the_lock_file_which_is_free(
    workspace: Workspace, served: Served
) -> None:
    for _ in range(2):
        served.address.give_back()
        assert [path.name for path in workspace.run.iterdir()] == ["runtime.lock"]
    take_lock(workspace).release()
