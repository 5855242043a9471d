"""Kept bytecode: the same modules come back, and nothing but modules ever does."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from octave.packages import bytecode

MINOR = "{}.{}".format(*sys.version_info)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "pkg" / "deep").mkdir(parents=True)
    for name in ("top.py", "pkg/__init__.py", "pkg/deep/inner.py"):
        (folder / name).write_text(f"NAME = {name!r}\n", encoding="utf-8")
    return folder


def compiled(site: Path) -> dict[str, bytes]:
    return {str(path.relative_to(site)): path.read_bytes() for path in site.rglob("*.pyc")}


def kept(site: Path, archive: Path) -> None:
    sources = [str(path.relative_to(site)) for path in site.rglob("*.py")]
    bytecode.compile_all(Path(sys.executable), site, sources)
    bytecode.keep(archive, site, sources, MINOR)


def restored(archive: Path, site: Path) -> bool:
    return bytecode.restore_all([("pkg", archive)], site) == {"pkg"}


def test_kept_modules_come_back_to_the_byte_and_are_used(site, tmp_path):
    archive = tmp_path / "cache" / "kept.pycs"
    kept(site, archive)
    before = compiled(site)
    assert len(before) == 3
    for path in site.rglob("*.pyc"):
        path.unlink()
    assert restored(archive, site)
    assert compiled(site) == before
    code = "import sys; sys.path.insert(0, sys.argv[1]); import pkg.deep.inner as m; print(m.NAME)"
    words = [sys.executable, "-v", "-c", code, str(site)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "pkg/deep/inner.py\n"
    assert f"code object from '{site / 'pkg/deep/__pycache__'}" in done.stderr
    assert compiled(site) == before


def test_what_python_cannot_read_is_left_alone(site, tmp_path):
    (site / "pkg" / "template.py").write_text("{{ name }} =", encoding="utf-8")
    kept(site, tmp_path / "kept.pycs")
    assert len(compiled(site)) == 3
    assert restored(tmp_path / "kept.pycs", site)


def test_modules_of_another_text_are_passed_over_by_python(site, tmp_path):
    kept(site, tmp_path / "kept.pycs")
    (site / "top.py").write_text("NAME = 'changed'\n", encoding="utf-8")
    assert restored(tmp_path / "kept.pycs", site)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import top; print(top.NAME)"
    done = subprocess.run([sys.executable, "-c", code, str(site)], capture_output=True, text=True)
    assert done.stdout == "changed\n"


def test_a_damaged_archive_is_dropped(site, tmp_path):
    archive = tmp_path / "kept.pycs"
    kept(site, archive)
    content = bytearray(archive.read_bytes())
    place = content.index(b"pkg/deep/inner.py")
    content[place] ^= 1
    archive.write_bytes(content)
    assert not restored(archive, site)
    assert not archive.exists()


@pytest.mark.parametrize("content", [None, b"", b"too short", b"x" * 100])
def test_what_is_no_archive_restores_nothing(site, tmp_path, content):
    archive = tmp_path / "kept.pycs"
    if content is not None:
        archive.write_bytes(content)
    assert not restored(archive, site)


@pytest.mark.parametrize(
    "name", ["../__pycache__/x.pyc", "/__pycache__/x.pyc", "top.py", "__pycache__/x.py"]
)
def test_only_modules_inside_the_folder_are_written(site, tmp_path, name):
    archive = tmp_path / "kept.pycs"
    body = json.dumps([[name, 4]]).encode() + b"\nevil"
    archive.write_bytes(hashlib.sha256(body).digest() + body)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    restored(archive, site)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_each_python_and_each_wheel_has_its_own(tmp_path):
    rows = [{"name": "p", "version": version, "hashes": [version]} for version in ("1", "2")]
    places = {
        bytecode.kept(tmp_path, row, python) for row in rows for python in ("3.11.7", "3.12.1")
    }
    assert len(places) == 4
