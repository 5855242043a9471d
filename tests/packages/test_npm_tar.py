"""Tarballs built byte by byte, most of them by somebody who means harm."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from octave.packages.ecosystems.npm_tar import BadArchive, Collision, Limits, unpack


def member(name: str, content: bytes = b"", *, kind: bytes = b"0", mode: int = 0o644) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.type = len(content), mode, kind
    if kind in {tarfile.SYMTYPE, tarfile.LNKTYPE}:
        info.linkname = "../../../etc/passwd"
    head = info.tobuf(tarfile.USTAR_FORMAT)
    return head + content + bytes(-len(content) % 512)


def tarball(*members: bytes) -> io.BytesIO:
    return io.BytesIO(gzip.compress(b"".join(members) + bytes(1024)))


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_first_component_is_dropped_whatever_it_is(tmp_path):
    assert unpack(tarball(member("odd name/a.js", b"1"), member("other/b/c.js", b"2")), tmp_path)
    assert files(tmp_path) == {"a.js": b"1", "b/c.js": b"2"}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(0o644, 0o644), (0o600, 0o644), (0o755, 0o755), (0o777, 0o755), (0o4711, 0o755), (0, 0o644)],
)
def test_modes_are_npms_whatever_the_umask(tmp_path, mode, expected):
    before = os.umask(0o077)
    try:
        unpack(tarball(member("package/d/x", b"", mode=mode)), tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "d/x").stat().st_mode & 0o7777 == expected
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o755


def test_the_last_of_two_spellings_of_a_name_wins(tmp_path):
    first = member("package/./dist/index.js", b"a longer first one", mode=0o755)
    unpack(tarball(first, member("package/dist//index.js", b"second")), tmp_path)
    assert files(tmp_path) == {"dist/index.js": b"second"}
    assert (tmp_path / "dist/index.js").stat().st_mode & 0o777 == 0o644


def test_gitignore_becomes_npmignore(tmp_path):
    unpack(tarball(member("p/.gitignore", b"1"), member("p/d/.gitignore", b"2")), tmp_path)
    assert files(tmp_path) == {".npmignore": b"1", "d/.npmignore": b"2"}


def test_gitignore_is_left_out_beside_npmignore(tmp_path):
    unpack(tarball(member("p/.npmignore", b"1"), member("p/.gitignore", b"2")), tmp_path)
    assert files(tmp_path) == {".npmignore": b"1"}


def test_long_and_foreign_names_arrive_whole(tmp_path):
    long_name = "package/" + "/".join(["d" * 90] * 4) + "/ünï.js"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as archive:
            info = tarfile.TarInfo(long_name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
        buffer.seek(0)
        folder = tmp_path / str(form)
        folder.mkdir()
        unpack(buffer, folder)
        assert files(folder) == {long_name.removeprefix("package/"): b"abc"}


def test_a_file_larger_than_any_buffer_arrives_whole(tmp_path):
    content = os.urandom(3 * 2**20 + 17)
    unpack(tarball(member("p/big", content), member("p/after", b"x")), tmp_path)
    assert files(tmp_path) == {"after": b"x", "big": content}


def test_concatenated_gzip_members_are_one_archive(tmp_path):
    whole = member("p/a", b"1" * 600) + member("p/b", b"2") + bytes(1024)
    joined = gzip.compress(whole[:700]) + gzip.compress(whole[700:]) + bytes(100)
    unpack(io.BytesIO(joined), tmp_path)
    assert set(files(tmp_path)) == {"a", "b"}


@pytest.mark.parametrize(
    "name",
    [
        "package/../../escape",
        "../escape",
        "/etc/escape",
        "package/a\\..\\escape",
        "C:/escape",
        "package/C:/escape",
        "package/x/../y",
    ],
)
def test_names_that_could_lead_outside_are_refused(tmp_path, name):
    folder = tmp_path / "deep/er"
    folder.mkdir(parents=True)
    with pytest.raises(BadArchive):
        unpack(tarball(member(name, b"x")), folder)
    assert not files(tmp_path)


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"6", b"V"])
def test_only_files_and_folders_are_accepted(tmp_path, kind):
    with pytest.raises(BadArchive):
        unpack(tarball(member("package/thing", kind=kind)), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "names", [("p/a", "p/a/b"), ("p/a/b", "p/a")], ids=["file first", "folder first"]
)
def test_a_name_cannot_be_file_and_folder(tmp_path, names):
    with pytest.raises(BadArchive, match="as a file and as a folder"):
        unpack(tarball(*(member(name, b"x") for name in names)), tmp_path)


def test_a_link_that_lies_there_already_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "d").symlink_to(outside)
    with pytest.raises(BadArchive):
        unpack(tarball(member("p/d/x", b"x")), folder)
    (folder / "f").symlink_to(outside / "f")
    with pytest.raises(OSError, match="symbolic link"):
        unpack(tarball(member("p/f", b"x")), folder)
    assert not files(outside)


def test_a_wrong_header_checksum_is_refused(tmp_path):
    block = bytearray(member("package/a", b"x"))
    block[0] ^= 1
    with pytest.raises(BadArchive, match="checksum"):
        unpack(tarball(bytes(block)), tmp_path)


@pytest.mark.parametrize("cut_bytes", [1, 9, 300])
def test_a_truncated_archive_is_refused(tmp_path, cut_bytes):
    whole = tarball(member("package/a", os.urandom(5000))).getvalue()
    with pytest.raises(BadArchive, match="ends too early"):
        unpack(io.BytesIO(whole[:-cut_bytes]), tmp_path)


def test_a_file_that_claims_more_than_is_there_is_refused(tmp_path):
    cut = io.BytesIO(gzip.compress(member("package/a", b"x" * 2000)[:1024]))
    with pytest.raises(BadArchive, match="ends too early"):
        unpack(cut, tmp_path)


def test_a_flipped_bit_is_refused(tmp_path):
    whole = bytearray(tarball(member("package/a", os.urandom(5000))).getvalue())
    whole[2500] ^= 1
    with pytest.raises(BadArchive):
        unpack(io.BytesIO(bytes(whole)), tmp_path)


def test_what_is_no_gzip_is_refused(tmp_path):
    for content in (b"", b"not gzip at all", member("package/a", b"x")):
        with pytest.raises(BadArchive):
            unpack(io.BytesIO(content), tmp_path)


def test_a_bomb_is_stopped_at_the_limit(tmp_path):
    bomb = tarball(member("package/zeros", bytes(8 * 2**20)))
    with pytest.raises(BadArchive, match="unpacks to more than"):
        unpack(bomb, tmp_path, Limits(unpacked_bytes=2**20))
    assert (tmp_path / "zeros").stat().st_size <= 2**20


def test_a_bomb_after_the_end_of_the_archive_is_stopped_too(tmp_path):
    hidden = io.BytesIO(gzip.compress(member("p/a", b"x") + bytes(8 * 2**20)))
    with pytest.raises(BadArchive, match="unpacks to more than"):
        unpack(hidden, tmp_path, Limits(unpacked_bytes=2**20))


def test_too_many_files_are_refused(tmp_path):
    many = tarball(*(member(f"p/{index}") for index in range(20)))
    with pytest.raises(BadArchive, match="more than 10 files"):
        unpack(many, tmp_path, Limits(members=10))


def test_an_endless_name_is_refused(tmp_path):
    header = bytearray(member("././@LongLink", kind=b"L")[:512])
    header[124:136] = b"00077777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(BadArchive, match="too long"):
        unpack(tarball(bytes(header)), tmp_path)


def test_a_broken_pax_header_is_refused(tmp_path):
    for record in (b"99 path=x\n", b"path=x\n", b"9 path=xy", b"9 size=x\n"):
        with pytest.raises(BadArchive, match="pax"):
            unpack(tarball(member("h", record, kind=b"x"), member("p/a")), tmp_path)


def test_a_pax_name_is_checked_like_any_other(tmp_path):
    record = b"26 path=p/../../../escape\n"
    with pytest.raises(BadArchive, match="outside"):
        unpack(tarball(member("h", record, kind=b"x"), member("p/a", b"x")), tmp_path)


def test_names_that_differ_in_case_are_a_collision_only_where_case_is_ignored(tmp_path):
    members = (member("p/Read.me", b"1"), member("p/READ.ME", b"2"))
    assert unpack(tarball(*members), tmp_path) == 2
    with pytest.raises(Collision):
        unpack(tarball(*members), tmp_path, fold_case=True)
