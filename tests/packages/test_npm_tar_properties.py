"""Archives nobody thought of: what Python's own writer makes arrives whole, damage never harms."""

import gzip
import io
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from octave.packages.ecosystems.npm_tar import BadArchive, Limits, unpack

_LETTERS = st.sampled_from("abcXYZ019_-+ @.äß漢")
_PARTS = st.text(_LETTERS, min_size=1, max_size=120).filter(
    lambda part: part.strip(".") and len(part.encode()) < 250
)
_PATHS = st.lists(_PARTS, min_size=1, max_size=5).map("/".join)
_CONTENTS = st.binary(max_size=2000)
_MODES = st.integers(0, 0o7777)
_TREES = st.dictionaries(_PATHS, st.tuples(_CONTENTS, _MODES), max_size=8)
_FORMATS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
_LIMITS = Limits(unpacked_bytes=2**20, members=1000)


def packed(tree: dict[str, tuple[bytes, int]], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for path, (content, mode) in tree.items():
            info = tarfile.TarInfo(f"package/{path}")
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def is_plain(tree: dict[str, tuple[bytes, int]]) -> bool:
    """Whether no path is a file and a folder, and none is what npm renames."""
    folders = {
        "/".join(path.split("/")[:depth])
        for path in tree
        for depth in range(1, path.count("/") + 1)
    }
    return folders.isdisjoint(tree) and not any(path.endswith(".gitignore") for path in tree)


@settings(max_examples=60, deadline=None)
@given(tree=_TREES.filter(is_plain), form=_FORMATS, level=st.integers(0, 9))
def test_what_pythons_writer_packs_arrives_to_the_byte(tree, form, level):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = unpack(io.BytesIO(gzip.compress(packed(tree, form), level)), folder, _LIMITS)
        found = {
            str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode & 0o7777)
            for path in folder.rglob("*")
            if path.is_file()
        }
    assert count == len(tree)
    assert found == {
        path: (content, ((mode | 0o666) & 0o755) | 0o600) for path, (content, mode) in tree.items()
    }


_DAMAGE = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6)


def harmless(archive: bytes) -> None:
    """Unpack beside something that must stay as it is; refusing is fine, all else is not."""
    with tempfile.TemporaryDirectory() as name:
        beside, folder = Path(name) / "beside", Path(name) / "deep" / "folder"
        beside.write_bytes(b"mine")
        folder.mkdir(parents=True)
        try:
            unpack(io.BytesIO(archive), folder, _LIMITS)
        except (BadArchive, OSError, ValueError) as error:
            # A name may be longer than the disk takes.
            assert isinstance(error, BadArchive | OSError)
        inside = [path for path in folder.rglob("*") if not path.is_dir()]
        assert all(path.is_file() and not path.is_symlink() for path in inside)
        assert sum(path.stat().st_size for path in inside) <= _LIMITS.unpacked_bytes
        assert {path.name for path in Path(name).iterdir()} == {"beside", "deep"}
        assert beside.read_bytes() == b"mine"
        assert [path.name for path in (Path(name) / "deep").iterdir()] == ["folder"]


def with_good_checksums(plain: bytearray) -> bytes:
    # Else nearly every damage ends at the first header.
    for start in range(0, len(plain) - 511, 512):
        block = plain[start : start + 512]
        if any(block) and block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            plain[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return bytes(plain)


@settings(max_examples=60, deadline=None)
@given(tree=_TREES, form=_FORMATS, damage=_DAMAGE)
def test_damaged_headers_never_reach_beyond_the_folder(tree, form, damage):
    plain = bytearray(packed(tree, form))
    for place, value in damage:
        plain[place % len(plain)] = value
    harmless(gzip.compress(with_good_checksums(plain), 1))


@settings(max_examples=50, deadline=None)
@given(tree=_TREES, damage=_DAMAGE, cut=st.integers(0, 500))
def test_a_damaged_gzip_never_reaches_beyond_the_folder(tree, damage, cut):
    archive = bytearray(gzip.compress(packed(tree, tarfile.PAX_FORMAT), 1))
    for place, value in damage:
        archive[place % len(archive)] = value
    harmless(bytes(archive[: len(archive) - cut]))


_EVIL_NAMES = st.lists(
    st.sampled_from(["..", ".", "", "a", "C:", "a\\..\\b", "\0", "package", "~"]), max_size=6
).map("/".join)
_KINDS = st.sampled_from([b"0", b"\0", b"7", b"1", b"2", b"3", b"4", b"5", b"6", b"L", b"K", b"g"])


@settings(max_examples=100, deadline=None)
@given(members=st.lists(st.tuples(_EVIL_NAMES, _KINDS, st.binary(max_size=600)), max_size=6))
def test_evil_names_and_kinds_never_reach_beyond_the_folder(members):
    plain = b""
    for name, kind, content in members:
        info = tarfile.TarInfo(name)
        info.size, info.type, info.linkname = len(content), kind, "../../beside"
        plain += info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)
    harmless(gzip.compress(plain + bytes(1024), 1))
