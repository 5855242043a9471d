"""`install --locked`: the same bytes on a second machine, and refusal when one is wrong."""

import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import Octave

GOLDEN = Path(__file__).with_name("golden.lock")
MANIFEST = """[servers.memory]
package = "npm:@modelcontextprotocol/server-memory"

[servers.time]
package = "pypi:mcp-server-time"
args = ["--local-timezone", "UTC"]
"""


pytestmark = pytest.mark.xdist_group("locked")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two of the golden servers installed; nobody changes it."""
    command = Octave(tmp_path_factory.mktemp("first") / "home", tmp_path_factory.mktemp("cwd"))
    command.home.mkdir(mode=0o700)
    (command.home / "octave.toml").write_text(MANIFEST)
    (command.home / "octave.lock").write_text(GOLDEN.read_text())
    command("install")
    command("shutdown", code=None)
    return command.home


@pytest.fixture
def second(first: Path, octave: Octave) -> Octave:
    """A home with the same servers wanted and locked, nothing installed."""
    octave.home.mkdir(mode=0o700)
    for name in ("octave.toml", "octave.lock"):
        shutil.copy(first / name, octave.home / name)
    return octave


def test_locked_install_on_an_empty_home_gives_the_same_lockfile_and_tree(
    first: Path, second: Octave
) -> None:
    before = (second.home / "octave.lock").read_bytes()
    second("install", "--locked")
    assert (second.home / "octave.lock").read_bytes() == before
    assert installed_files(second.home / "servers") == installed_files(first / "servers")
    assert "21:00" in second(
        "call", "time", "convert_time", "source_timezone=UTC", "time=12:00",
        "target_timezone=Asia/Tokyo",
    ).stdout  # fmt: skip


@pytest.mark.parametrize("kind", ["sha512-", "sha256:"])
def test_one_changed_character_in_an_integrity_exits_7_and_leaves_nothing(
    second: Octave, kind: str
) -> None:
    lock = second.home / "octave.lock"
    text = lock.read_text()
    at = text.rindex(kind) + len(kind) + 8
    lock.write_text(text[:at] + ("a" if text[at] != "a" else "b") + text[at + 1 :])
    ran = second("install", "--locked", "--json", code=7)
    assert ran.error["code"] == "integrity_failed"
    assert not list((second.home / "servers").glob("*/*"))


def test_a_wrong_hash_under_a_right_digest_exits_7_and_leaves_nothing(second: Octave) -> None:
    lock = second.home / "octave.lock"
    text = lock.read_text()
    # Only the server's own integrity is outside the digest: it is compared when installing.
    found = re.search(r'name = "memory".*?\nintegrity = "sha512-(.)', text, re.DOTALL)
    assert found is not None
    at = found.start(1)
    lock.write_text(text[:at] + ("a" if text[at] != "a" else "b") + text[at + 1 :])
    second("install", "--locked", code=None)
    assert not list((second.home / "servers").glob("memory/*"))


def test_a_manifest_the_lockfile_does_not_answer_exits_7(second: Octave) -> None:
    manifest = second.home / "octave.toml"
    manifest.write_text(MANIFEST + '\n[servers.git]\npackage = "pypi:mcp-server-git"\n')
    ran = second("install", "--locked", "--json", code=7)
    assert ran.error["code"] == "lock_stale"
    assert second("lock", "--check", code=7).stdout == ""
    assert not (second.home / "servers").exists() or not list((second.home / "servers").glob("*/*"))


def installed_files(servers: Path) -> dict[str, bytes]:
    """Return the contents of all files but those that hold their own place or time."""
    return {
        str(path.relative_to(servers)): path.read_bytes()
        for path in servers.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.name not in {"RECORD", "pyvenv.cfg"}
    }
