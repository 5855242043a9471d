from pathlib import Path

import pytest

from octave.packages import offered
from octave.packages.offered import Offered

# Odd on purpose: spaces, key order, a number no double holds, escapes.
TOOL = b'{ "inputSchema":{"b":1.0, "a":12345678901234567890123}, "name":"x\\u00e9\\/" }'
OFFER = Offered(b'{"capabilities":{}, "protocolVersion":"2025-11-25"}', {"tools": (TOOL, TOOL)})


def test_every_byte_of_every_item_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "catalogue" / "x.json"
    offered.save(path, OFFER, "1.0", "sha256:a")
    found = offered.load(path, "1.0", "sha256:a")
    assert found is not None
    assert found == OFFER
    assert found.tools == (TOOL, TOOL)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("version", "digest"), [("1.1", "sha256:a"), ("1.0", "sha256:b")])
def test_another_version_is_not_what_was_saved(tmp_path: Path, version: str, digest: str) -> None:
    offered.save(tmp_path / "x.json", OFFER, "1.0", "sha256:a")
    assert offered.load(tmp_path / "x.json", version, digest) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"format":1}'])
def test_a_damaged_file_keeps_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert offered.load(tmp_path / "x.json", "1.0", "sha256:a") is None


def test_a_missing_file_keeps_nothing(tmp_path: Path) -> None:
    assert offered.load(tmp_path / "x.json", "1.0", "sha256:a") is None


def test_names_are_in_the_servers_order() -> None:
    offer = Offered(b"{}", {"prompts": (b'{"name":"b"}', b'{"title":"t"}', b'{"name":"a"}')})
    assert offer.names("prompts") == ("b", "a")
    assert offer.names() == ()


def test_an_item_that_cannot_be_read_back_takes_no_other_with_it(tmp_path: Path) -> None:
    lone = b'{"name":"\\ud800"}'
    deep = b'{"name":' + b"[" * 5000 + b"]" * 5000 + b"}"
    offered.save(tmp_path / "x.json", Offered(b"{}", {"tools": (lone, TOOL, deep)}), "1", "d")
    assert offered.load(tmp_path / "x.json", "1", "d") == Offered(b"{}", {"tools": (TOOL,)})
    offered.save(tmp_path / "y.json", Offered(lone, {}), "1", "d")
    assert not (tmp_path / "y.json").exists()
