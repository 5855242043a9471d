"""What an archive may hold, and what it may not."""

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from octave.packages.ecosystems.mcpb_zip import Limits, holds_folder, read_member, unpack
from octave.packages.ecosystems.npm_tar import BadArchive
from tests.packages.bundle_maker import archive


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> io.BytesIO:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members:
            packed.writestr(name, content)
    return made


def member(name: str, mode: int = 0o644, **changes: object) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.create_system, made.external_attr = 3, mode << 16
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def test_files_and_their_execute_bit_come_out_and_no_other_bit_does(tmp_path: Path) -> None:
    unpack(
        zipped(
            (member("a/", stat.S_IFDIR | 0o777), b""),
            (member("a/./b/run", stat.S_IFREG | 0o6777), b"#!/bin/sh\n"),
            (member("read.me", stat.S_IFREG | 0o600), b"text"),
        ),
        tmp_path,
    )
    found = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
        for path in tmp_path.rglob("*")
    }
    assert found == {"a": 0o755, "a/b": 0o755, "a/b/run": 0o755, "read.me": 0o644}
    assert (tmp_path / "read.me").read_bytes() == b"text"


def test_a_signature_behind_the_archive_does_no_harm(tmp_path: Path) -> None:
    signed = io.BytesIO(archive({"a": "b"}) + b"MCPB_SIG_V1" + bytes(900) + b"MCPB_SIG_END")
    unpack(signed, tmp_path)
    assert (tmp_path / "a").read_text(encoding="utf-8") == "b"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../x", "outside its folder"),
        ("a/../../x", "outside its folder"),
        ("/etc/x", "no plain path"),
        ("C:/x", "no plain path"),
        ("a\\..\\x", "no plain path"),
        ("a\nb", "no plain path"),
        ("a\u202eb", "no plain path"),
        ("x" * 2000, "no plain path"),
    ],
)
def test_no_name_leads_elsewhere(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(BadArchive, match=why):
        unpack(zipped(("fine", b"x"), (name, b"x")), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (stat.S_IFLNK | 0o777, "symbolic link"),
        (stat.S_IFIFO | 0o644, "neither a file nor a folder"),
        (stat.S_IFCHR | 0o644, "neither a file nor a folder"),
    ],
)
def test_nothing_but_files_and_folders_comes_out(tmp_path: Path, mode: int, why: str) -> None:
    with pytest.raises(BadArchive, match=why):
        unpack(zipped((member("x", mode), b"/etc/passwd")), tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [
        ("a", "a"),
        ("a", "A"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b", "A/c"),
        ("stra\u00dfe", "STRASSE"),
        ("e\u0301", "\u00e9"),
        ("a", "./a"),
        ("a", "A/"),
    ],
)
def test_two_names_never_mean_one_place(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(BadArchive, match="another of that name"):
        unpack(zipped(*((name, b"") for name in names)), tmp_path)


def test_a_bomb_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    zeros = zipped(("zeros", bytes(2**20)))
    for limits, why in (
        (Limits(unpacked_bytes=2**19), "more than 524288 bytes"),
        (Limits(ratio_from_bytes=2**10), "100 times its size"),
        (Limits(members=0), "more than 0 files"),
    ):
        with pytest.raises(BadArchive, match=why):
            unpack(zeros, tmp_path, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_is_a_lie_ends_the_unpacking(tmp_path: Path) -> None:
    content = bytearray(zipped(("zeros", bytes(2**20))).getvalue())
    # The size in the directory of the archive, APPNOTE.TXT 4.3.12.
    place = content.rindex(b"PK\x01\x02") + 24
    content[place : place + 4] = struct.pack("<L", 10)
    with pytest.raises(BadArchive):
        unpack(io.BytesIO(content), tmp_path)


def test_encryption_odd_packing_and_damage_are_refused(tmp_path: Path) -> None:
    encrypted = bytearray(archive({"a": "text"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.index(mark) + offset] |= 1
    odd = io.BytesIO()
    with zipfile.ZipFile(odd, "w", zipfile.ZIP_BZIP2) as packed:
        packed.writestr("a", b"text" * 100)
    damaged = bytearray(archive({"a": "text" * 1000}))
    damaged[40] ^= 0xFF
    for content, why in (
        (bytes(encrypted), "encrypted"),
        (odd.getvalue(), "nobody expects"),
        (bytes(damaged), "no.* sound zip"),
        (b"PK\x05\x06", "no.* sound zip"),
        (b"", "no.* sound zip"),
        (archive({"a": "text"})[:-30], "no.* sound zip"),
    ):
        with pytest.raises(BadArchive, match=why):
            unpack(io.BytesIO(content), tmp_path)
    assert holds_folder(io.BytesIO(archive({"a/b": ""})), "a")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_file_is_read_when_there_is_exactly_one_and_it_is_small() -> None:
    assert read_member(zipped(("m", b"text")), "m", 10) == b"text"
    for content, why in (
        (zipped(("x/m", b"")), "has no `m`"),
        (zipped(("m", b"a"), ("m", b"b")), "more than one"),
        (zipped(("m", b"text" * 10)), "more than 10 bytes"),
        (zipped((member("m", stat.S_IFLNK), b"x")), "symbolic link"),
    ):
        with pytest.raises(BadArchive, match=why):
            read_member(content, "m", 10)
