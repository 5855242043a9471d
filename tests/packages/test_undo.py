from pathlib import Path

import pytest

from octave.home import atomic_write
from octave.packages.undo import restored_on_error
from tests.small_disk import fill, small_disk

OLD = b"what stood there" * 4096


def changed(path: Path) -> None:
    with restored_on_error(path):
        atomic_write(path, b"new")
        raise KeyboardInterrupt


def test_a_file_comes_back_where_there_is_no_room_for_it(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m"):
        path = tmp_path / "disk" / "octave.toml"
        path.write_bytes(OLD)
        with pytest.raises(KeyboardInterrupt), restored_on_error(path):
            atomic_write(path, b"new")
            fill(path.parent)
            raise KeyboardInterrupt
        assert path.read_bytes() == OLD
        assert {each.name for each in path.parent.iterdir()} == {"octave.toml", "filler"}


def test_a_link_stays_a_link_and_the_mode_stays(tmp_path: Path) -> None:
    path, link = tmp_path / "dotfiles.toml", tmp_path / "octave.toml"
    path.write_bytes(OLD)
    path.chmod(0o640)
    link.symlink_to(path)
    with pytest.raises(KeyboardInterrupt):
        changed(link)
    assert link.is_symlink()
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (OLD, 0o640)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_was_not_there_goes_again(tmp_path: Path) -> None:
    path = tmp_path / "octave.toml"
    with pytest.raises(KeyboardInterrupt):
        changed(path)
    assert list(tmp_path.iterdir()) == []


def test_without_an_error_the_new_one_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "octave.toml"
    path.write_bytes(OLD)
    with restored_on_error(path):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_kept_goes_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "octave.toml"
    path.write_bytes(OLD)
    (tmp_path / ".octave.toml.0123456789ab.tmp").hardlink_to(path)
    atomic_write(path, b"new")
    assert len(list(tmp_path.iterdir())) == 1
