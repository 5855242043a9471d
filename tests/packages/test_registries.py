"""The bundled registry first, then those configured: which server a name means."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octave.errors import Ambiguous, NotFound, OctaveError, RegistryUnreachable, ServerNotFound
from octave.home import Home, Workspace
from octave.packages import manifest, registries, workspaces
from octave.packages.info import describe
from octave.packages.mcp_registry import Access, McpRegistry
from octave.packages.registries import OFFICIAL, OFFICIAL_URL, Asking, Registries
from octave.packages.registry import Registry, bundled_folder
from octave.packages.registry_http import Limits
from octave.packages.resolve import choose
from tests.packages.mcp_registry import RegistryServer, package
from tests.packages.web_host import Answer

LIMITS = Limits(connect_s=2.0, silence_s=1.0, retry_wait_s=0.0)
NPM = package("npm", "thing")


@pytest.fixture
def first() -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        yield made


@pytest.fixture
def second() -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        yield made


@pytest.fixture
def known(tmp_path: Path, first: RegistryServer, second: RegistryServer) -> Registries:
    access = Access(tmp_path, limits=LIMITS)
    others = [McpRegistry("one", first.url, access), McpRegistry("two", second.url, access)]
    return Registries(Registry(bundled_folder()), lambda: others)


def refused(known: Registries, name: str) -> OctaveError:
    with pytest.raises(OctaveError) as caught:
        known.get(name)
    return caught.value


@pytest.mark.parametrize(
    "name", ["time", "k8s", "io.github.modelcontextprotocol/server-time", "github"]
)
def test_the_bundled_registry_wins_for_what_it_has_and_no_other_is_asked(
    known: Registries, first: RegistryServer, name: str
) -> None:
    first.add(f"com.evil/{name.rpartition('/')[2]}", NPM)
    first.add("io.github.modelcontextprotocol/server-time", NPM)

    assert known.get(name).registry == ""
    assert first.told() == []


def test_a_short_name_is_the_last_part_of_one_full_name(
    known: Registries, first: RegistryServer
) -> None:
    first.add("com.example/quokka", package("pypi", "quokka-mcp"))
    first.add("com.example/quokka-two", NPM)

    entry = known.get("quokka")
    assert (entry.name, entry.registry, entry.short_name) == (
        "com.example/quokka",
        "one",
        "quokka",
    )
    choice = choose("quokka@>=1", known)
    assert (choice.name, choice.source, choice.version_range) == (
        "quokka",
        "pypi:quokka-mcp",
        ">=1",
    )
    assert choice.known is not None
    assert choice.known.claim == "com.example/quokka"


def test_several_servers_of_that_name_are_listed_and_none_is_taken(
    known: Registries, first: RegistryServer
) -> None:
    for owner in ("com.b", "com.a"):
        first.add(f"{owner}/quokka", NPM)
    error = refused(known, "quokka")

    assert isinstance(error, Ambiguous)
    assert error.exit_code == 4
    assert error.message == "`quokka` could be `com.a/quokka` or `com.b/quokka`"
    assert error.hint == "give the full name, such as `com.a/quokka`"
    assert error.details["candidates"] == ["com.a/quokka", "com.b/quokka"]


def test_the_first_registry_that_has_the_name_decides(
    known: Registries, first: RegistryServer, second: RegistryServer
) -> None:
    second.add("com.b/quokka", NPM)
    assert known.get("quokka").registry == "two"
    assert known.get("com.b/quokka").registry == "two"
    first.add("com.a/wombat", NPM)
    second.add("com.b/wombat", NPM)
    assert known.get("wombat").name == "com.a/wombat"


@pytest.mark.parametrize("name", ["quokka", "com.b/quokka"])
def test_whoever_blocks_a_registry_does_not_choose_a_later_one(
    known: Registries, first: RegistryServer, second: RegistryServer, name: str
) -> None:
    second.add("com.b/quokka", NPM)
    first.answer = lambda asked: Answer(status=500)

    assert isinstance(refused(known, name), RegistryUnreachable)
    assert second.told() == []


@pytest.mark.parametrize("typed", ["githb", "gihtub", "git-hub", "GITHUB", "tiime", "plawright"])
def test_a_name_that_looks_like_a_bundled_one_needs_the_full_name(
    known: Registries, first: RegistryServer, typed: str
) -> None:
    first.add(f"com.evil/{typed}", NPM)
    error = refused(known, typed)

    assert isinstance(error, Ambiguous)
    assert f"`com.evil/{typed}`" in error.message
    assert known.get(f"com.evil/{typed}").registry == "one"


def test_a_server_of_another_registry_never_gets_the_name_of_a_bundled_one(
    known: Registries, first: RegistryServer
) -> None:
    for name in ("com.evil/github", "io.github.evil/github-mcp-server", "com.evil/k8s"):
        first.add(name, NPM)
    assert known.get("com.evil/github").short_name == "evil-github"
    assert known.get("io.github.evil/github-mcp-server").short_name == "evil-github"
    assert known.get("com.evil/k8s").short_name == "evil-k8s"


def test_a_deleted_server_is_shown_and_not_installed(
    known: Registries, first: RegistryServer
) -> None:
    first.add("com.example/gone", NPM, status="deleted", statusMessage="malware")

    assert describe(known.get("com.example/gone"))["deleted"] == "malware"
    assert describe(known.get("com.example/gone"))["install"] is None
    with pytest.raises(ServerNotFound, match="was deleted from the registry `one`: malware"):
        choose("com.example/gone", known)


def test_a_deprecated_server_is_installed_with_its_message(
    known: Registries, first: RegistryServer
) -> None:
    first.add("com.example/old", NPM, status="deprecated", statusMessage="use new")
    choice = choose("com.example/old", known)

    assert choice.entry is not None and choice.known is not None
    assert choice.entry.notes_for(choice.known)[0] == (
        "`com.example/old` is deprecated by its publisher: use new"
    )


def test_a_server_in_a_form_octave_cannot_install_says_which(
    known: Registries, first: RegistryServer
) -> None:
    first.add("com.example/odd", package("nuget", "Odd.Thing"), package("cargo", "odd"))
    with pytest.raises(OctaveError, match="only as nuget package, as cargo package"):
        choose("com.example/odd", known)


def test_an_unknown_name_says_who_was_asked(known: Registries) -> None:
    error = refused(known, "com.example/nothing")
    assert isinstance(error, ServerNotFound)
    assert "in the registries `bundled`, `one`, `two`" in error.message
    alone = refused(Registries(Registry(bundled_folder())), "com.example/nothing")
    assert alone.hint == "`--registry official` asks the official registry"
    near = refused(known, "io.github.modelcontextprotocol/server-tim")
    assert near.hint is not None and "modelcontextprotocol/server-time`" in near.hint


@pytest.mark.parametrize("name", ["quokka-none", "../../x", "@scope/name", "", "a b", "x;y"])
def test_what_no_registry_has_is_not_found(known: Registries, name: str) -> None:
    assert isinstance(refused(known, name), ServerNotFound)


def test_each_registry_is_asked_once_for_one_name(known: Registries, first: RegistryServer) -> None:
    first.add("com.example/quokka", NPM)
    for _ in range(3):
        known.get("quokka")
        known.get("com.example/quokka")
    assert len(first.told()) == 2


# Which registries


def workspace(tmp_path: Path, text: str, *, is_home: bool = True) -> Workspace:
    home = Home(tmp_path / "home")
    folder = home.root if is_home else tmp_path / "project"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "octave.toml").write_text(text, encoding="utf-8")
    return Workspace(home, folder / "octave.toml")


TWO = '[registries.b]\nurl = "https://b.test"\n[registries.a]\nurl = "https://a.test/mcp/"\n'


def named(found: list[McpRegistry]) -> list[tuple[str, str]]:
    return [(each.name, each.url) for each in found]


def test_registries_are_asked_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    here = workspace(tmp_path, TWO)
    two = [("b", "https://b.test"), ("a", "https://a.test/mcp")]

    assert named(registries.opened(here)) == two
    assert named(registries.opened(here, only="a")) == two[1:]
    assert named(registries.opened(here, only=OFFICIAL)) == [(OFFICIAL, OFFICIAL_URL)]
    assert named(registries.opened(here, also=OFFICIAL)) == [*two, (OFFICIAL, OFFICIAL_URL)]
    assert named(registries.opened(here, also="b")) == two
    with pytest.raises(NotFound, match="no registry `c`"):
        registries.opened(here, only="c")


def test_without_being_named_the_official_registry_is_not_asked(tmp_path: Path) -> None:
    assert registries.opened(workspace(tmp_path, "")) == []


def test_a_strangers_project_does_not_choose_who_is_asked(tmp_path: Path) -> None:
    here = workspace(tmp_path, TWO, is_home=False)
    told: list[str] = []

    assert registries.opened(here, Asking(warn=told.append)) == []
    assert "not asked until you trust it" in told[0]
    workspaces.trust(here, manifest.load(here.manifest))
    assert len(registries.opened(here)) == 2
    text = here.manifest.read_text(encoding="utf-8")
    here.manifest.write_text(text.replace("a.test", "evil.test"), encoding="utf-8")
    assert registries.opened(here) == []


def test_consent_from_before_registries_still_holds() -> None:
    plain = manifest.parse(Path("octave.toml"), '[servers.x]\ncommand = ["true"]\n')
    listed = [{"x": {"command": ["true"]}}, None]
    assert plain.trust_hash == _hash(listed)
    with_one = manifest.parse(
        Path("octave.toml"),
        '[servers.x]\ncommand = ["true"]\n[registries.a]\nurl = "https://a.b"\n',
    )
    assert with_one.trust_hash != plain.trust_hash
    assert with_one.servers_hash == plain.servers_hash


def _hash(found: Any) -> str:
    import hashlib

    canonical = json.dumps(found, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
