import os
import stat
import threading
import time
from pathlib import Path

import pytest

from octave.clients import config_file
from octave.errors import Locked, OctaveError, StorageFailed

WAIT_S = 5.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_read_as_it_is_line_ends_and_byte_order_mark_included(file):
    file.write_bytes(b"\xef\xbb\xbf{\r\n}\r")
    assert config_file.read(file) == "\ufeff{\r\n}\r"


def test_there_may_be_no_file_and_no_folder(file):
    assert config_file.read(file) is None
    assert config_file.read(file / "below" / "it") is None


def test_what_is_no_text_file_is_refused(file, tmp_path):
    file.write_bytes(b"{}\xff")
    with pytest.raises(OctaveError, match="is not UTF-8 text at byte 2"):
        config_file.read(file)
    with pytest.raises(OctaveError, match="is not a file"):
        config_file.read(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OctaveError, match="is not a file"):
        config_file.read(tmp_path / "fifo")


def test_a_link_to_itself_cannot_be_read(file):
    file.symlink_to(file)
    with pytest.raises(StorageFailed, match="cannot read"):
        config_file.read(file)


def test_a_new_file_and_its_folder_are_private_whatever_the_umask(tmp_path, open_umask):
    file = tmp_path / "new" / "config.json"
    config_file.write(file, "{}")
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)


@pytest.mark.parametrize("bits", [0o600, 0o644, 0o664])
def test_a_files_mode_stays(file, bits):
    file.write_text("old", encoding="utf-8")
    file.chmod(bits)
    config_file.write(file, "new")
    assert (config_file.read(file), mode(file)) == ("new", bits)


def test_a_link_stays_and_its_target_is_written(file, tmp_path):
    target = tmp_path / "dotfiles" / "config.json"
    file.symlink_to(target)
    config_file.write(file, "new")
    assert file.is_symlink()
    assert target.read_text(encoding="utf-8") == "new"


def test_a_write_leaves_nothing_beside_the_file(file, tmp_path):
    config_file.write(file, "{}")
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_where_the_folder_should_be_is_told(file):
    file.touch()
    with pytest.raises(StorageFailed, match="cannot write"):
        config_file.write(file / "config.json", "{}")


def test_a_read_only_file_is_not_to_be_replaced(file):
    config_file.require_writable(file)
    file.touch(mode=0o444)
    with pytest.raises(StorageFailed, match="is read-only") as caught:
        config_file.require_writable(file)
    assert caught.value.hint == f"chmod u+w {file}"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_another_users_file_is_not_to_be_replaced(file):
    file.touch()
    os.chown(file, 12345, -1)
    with pytest.raises(StorageFailed, match="belongs to another user"):
        config_file.require_writable(file)


def test_a_backup_is_private_and_replaces_an_older_one_that_was_not(file, tmp_path):
    older = tmp_path / "config.json.octave-backup"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("not mine", encoding="utf-8")
    older.symlink_to(elsewhere)
    assert config_file.back_up(file, "old") == older
    assert (config_file.read(older), mode(older)) == ("old", 0o600)
    assert not older.is_symlink()
    assert config_file.read(elsewhere) == "not mine"


def test_a_backup_that_says_what_the_file_says_goes(file):
    backup = config_file.back_up(file, "old")
    config_file.put_back(file, "newer")
    assert config_file.read(backup) == "old"
    config_file.put_back(file, "old")
    assert config_file.read(file) == "old"
    assert not backup.exists()


def test_a_file_that_was_not_there_is_deleted_and_a_link_to_it_stays(file, tmp_path):
    target = tmp_path / "target"
    target.touch()
    file.symlink_to(target)
    config_file.put_back(file, None)
    config_file.put_back(file, None)
    assert not target.exists()
    assert file.is_symlink()


def test_the_owners_lock_is_held_for_the_time_of_the_change(file, tmp_path):
    with config_file.held(file, ".lock"):
        assert (tmp_path / "config.json.lock").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_given_back_after_a_failure(file, tmp_path):
    with pytest.raises(ZeroDivisionError), config_file.held(file, ".lock"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_without_a_lock_or_a_folder_nothing_is_made(file, tmp_path):
    with config_file.held(file, None), config_file.held(file / "below" / "it", ".lock"):
        assert list(tmp_path.iterdir()) == []


def test_a_lock_that_the_owner_holds_is_waited_for(file, tmp_path):
    lock = tmp_path / "config.json.lock"
    lock.mkdir()
    entered = threading.Event()

    def change() -> None:
        with config_file.held(file, ".lock"):
            entered.set()

    thread = threading.Thread(target=change)
    thread.start()
    assert not entered.wait(0.1)
    lock.rmdir()
    assert entered.wait(WAIT_S)
    thread.join(WAIT_S)
    assert not lock.exists()


def test_a_lock_that_is_held_too_long_is_told(file, tmp_path, monkeypatch):
    lock = tmp_path / "config.json.lock"
    lock.mkdir()
    monkeypatch.setattr(config_file, "LOCK_WAIT_S", 0.0)
    with pytest.raises(Locked, match="another program holds"), config_file.held(file, ".lock"):
        pass
    assert lock.is_dir()


@pytest.mark.parametrize(("age_s", "is_stale"), [(11.0, True), (5.0, False)])
def test_a_lock_left_behind_is_taken_over_after_ten_seconds(
    file, tmp_path, monkeypatch, age_s, is_stale
):
    lock = tmp_path / "config.json.lock"
    lock.mkdir()
    touched = time.time() - age_s
    os.utime(lock, (touched, touched))
    monkeypatch.setattr(config_file, "LOCK_WAIT_S", 1.0 if is_stale else 0.0)
    if is_stale:
        with config_file.held(file, ".lock"):
            assert time.time() - lock.stat().st_mtime < config_file.LOCK_STALE_S
        assert not lock.exists()
    else:
        with pytest.raises(Locked), config_file.held(file, ".lock"):
            pass


def test_a_file_where_the_lock_should_be_is_told_and_kept(file, tmp_path, monkeypatch):
    (tmp_path / "config.json.lock").touch()
    monkeypatch.setattr(config_file, "LOCK_WAIT_S", 0.0)
    with pytest.raises(Locked), config_file.held(file, ".lock"):
        pass
    assert (tmp_path / "config.json.lock").is_file()
