"""Who asks a private registry: headers by reference, for its address alone, and nowhere on disk."""

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from octave.errors import RegistryUnreachable
from octave.home import Home, Workspace
from octave.packages import manifest, registries
from octave.packages.manifest import RegistryEntry
from octave.packages.mcp_registry import Access, McpRegistry
from octave.packages.registries import Asking
from octave.settings import Reference
from tests.packages.mcp_registry import Asked, RegistryServer
from tests.packages.registry_reader import LIMITS
from tests.packages.web_host import Answer

VALUE = "Bearer t0ps3cret"


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        made.add("com.example/thing")
        yield made


def guarded(registry: RegistryServer) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.headers.get("authorization") != VALUE:
            return Answer.of({"error": "who are you"}, 401)
        return registry.honest(asked)

    registry.answer = answer


def opened(root: Path, url: str, headers: str, environ: Mapping[str, str]) -> McpRegistry:
    workspace = Workspace.of_home(Home(root / "home"))
    workspace.prepare()
    text = f'[registries.company]\nurl = "{url}"\nheaders = {{ {headers} }}\n'
    workspace.manifest.write_text(text, encoding="utf-8")
    (made,) = registries.opened(workspace, Asking(environ))
    return made


def asked_with(root: Path, url: str, value: str = VALUE) -> McpRegistry:
    access = Access(root / "cache", limits=LIMITS)
    return McpRegistry("company", url, access, lambda: {"Authorization": value, "X-Team": "a"})


def test_a_reference_is_resolved_and_sent_and_kept_nowhere(
    tmp_path: Path, registry: RegistryServer
) -> None:
    guarded(registry)
    headers = 'Authorization = { env = "COMPANY_AUTH" }'
    company = opened(tmp_path, registry.url, headers, {"COMPANY_AUTH": VALUE})
    assert [entry.name for entry in company.search("thing")] == ["com.example/thing"]
    company.update()
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) >= 3
    assert [path for path in kept if b"t0ps3cret" in path.read_bytes()] == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_registry_that_wants_authorization_says_how(
    tmp_path: Path, registry: RegistryServer, status: int
) -> None:
    registry.answer = lambda asked: Answer(status=status)
    with pytest.raises(RegistryUnreachable) as raised:
        opened(tmp_path, registry.url, "", {}).search("thing")
    assert f"answers {status}: it wants authorization" in raised.value.message
    assert "--header-env 'Authorization: VARIABLE'" in str(raised.value.hint)
    assert len(registry.asked) == 1


def test_a_value_that_is_not_accepted_is_named_and_not_told(
    tmp_path: Path, registry: RegistryServer
) -> None:
    guarded(registry)
    with pytest.raises(RegistryUnreachable) as raised:
        asked_with(tmp_path, registry.url, "Bearer wrong").search("thing")
    told = json.dumps(raised.value.as_json())
    assert "does not accept what was sent as `Authorization` and `X-Team`" in told
    assert "wrong" not in told


def test_a_reference_that_leads_nowhere_ends_only_that_registry(
    tmp_path: Path, registry: RegistryServer
) -> None:
    company = opened(tmp_path, registry.url, 'Authorization = { secret = "company/AUTH" }', {})
    with pytest.raises(RegistryUnreachable) as raised:
        company.search("thing")
    assert "cannot be asked: the reference" in raised.value.message
    assert raised.value.hint == "octave secret set company AUTH"
    assert registry.asked == []


@pytest.mark.parametrize("value", ["two\nlines", "ünïcode", "nul\0", "\x1b[2J"])
def test_what_is_no_header_is_refused_without_being_quoted(
    tmp_path: Path, registry: RegistryServer, value: str
) -> None:
    company = opened(tmp_path, registry.url, 'A = { env = "V" }', {"V": value})
    with pytest.raises(RegistryUnreachable) as raised:
        company.search("thing")
    assert "the value of `A` is no header" in raised.value.message
    assert value not in json.dumps(raised.value.as_json(), ensure_ascii=False)
    assert registry.asked == []


def test_headers_go_to_no_other_address(tmp_path: Path, registry: RegistryServer) -> None:
    with RegistryServer() as other:
        for where in (other.url, other.url.replace("http://", "https://")):
            moved = Answer(status=302, headers={"Location": f"{where}/v0.1/servers"})
            registry.answer = functools.partial(_always, moved)
            with pytest.raises(RegistryUnreachable, match="leads to another host"):
                asked_with(tmp_path, registry.url).search("thing")
        assert other.asked == []
        # On the same one they stay.
        moved = Answer(status=307, headers={"Location": "/new"})
        registry.answer = lambda asked: moved if asked.path != "/new" else None
        registry.asked.clear()
        with pytest.raises(RegistryUnreachable):
            asked_with(tmp_path, registry.url).search("thing")
        assert {asked.headers["authorization"] for asked in registry.asked} == {VALUE}


def _always(answer: Answer, _: Asked) -> Answer:
    return answer


def test_nothing_is_sent_where_others_could_read_it(tmp_path: Path) -> None:
    with pytest.raises(RegistryUnreachable, match="is not reached by https"):
        asked_with(tmp_path, "http://mcp.example.com").search("thing")


def test_a_changed_header_asks_for_trust_again(tmp_path: Path) -> None:
    def parsed(headers: str) -> manifest.Manifest:
        text = f'[registries.a]\nurl = "https://a.test"\n{headers}\n'
        return manifest.parse(tmp_path / "octave.toml", text)

    plain = parsed("")
    mine = parsed('headers = { Authorization = { env = "A" } }')
    theirs = parsed('headers = { Authorization = { secret = "github/TOKEN" } }')
    assert len({plain.trust_hash, mine.trust_hash, theirs.trust_hash}) == 3
    assert mine.registries["a"] == RegistryEntry(
        "https://a.test", {"Authorization": Reference("env", "A")}
    )
